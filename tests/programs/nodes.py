"""Questions about a program that its tree answers: which parts it holds, what it may refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from programs.grammar import (
    BACKWARD,
    BATCHES,
    BRANCHES,
    DERIVATIVES,
    FORWARD,
    KEPT,
    LOOPS,
    PLAIN,
    ROOTS,
    SNAPSHOTS,
    STACKED,
    THREADS,
    Cell,
    Ensemble,
    Host,
    Other,
    Stack,
    Within,
)

RULES = ("custom_jvp", "custom_jvp read", "custom_vjp", *BACKWARD, *FORWARD)
# Functions whose derivative says nothing about the state that they read.
SILENT = (*RULES, "custom_root", "linear_solve")
# What hands over all modules of a program.
WHOLE = (
    *THREADS, *ROOTS, *SNAPSHOTS, "scan carry", "while carry", "cond argument", "jit argument",
    "checkpoint argument", "grad argument", "vmap argument", "eqx.filter_jit argument",
)  # fmt: skip
READING = ("read", "tree read")


def parts(node: object) -> Iterator[object]:
    """All parts of a program, itself first."""
    yield node
    for child in children(node):
        yield from parts(child)


def children(node: object) -> list[object]:
    """The programs that stand directly inside a program."""
    values = [getattr(node, field.name) for field in dataclasses.fields(node)]
    return [value for value in values if dataclasses.is_dataclass(value)]


def holds(node: object, *kinds: str) -> bool:
    """Whether a program contains a part of one of these kinds."""
    return any(part.kind in kinds for part in parts(node))


def touches(node: object) -> bool:
    """Whether a program reads or writes state."""
    return any(_is_leaf(part) and part.kind not in PLAIN for part in parts(node)) or holds(
        node, *STACKED, "while state", "switch state", "custom_jvp read", "backward reads"
    )


def writes(node: object) -> bool:
    """Whether a program changes state."""
    return _writers(node) > 0


def _writers(node):
    leaves = sum(
        _is_leaf(part) and not isinstance(part, Host) and part.kind not in (*PLAIN, *READING)
        for part in parts(node)
    )
    return leaves + sum(part.kind in STACKED for part in parts(node))


def _is_leaf(part):
    return isinstance(part, (Cell, Ensemble, Other, Stack, Host))


def may_refuse(node: object, differentiated: bool = False, by_state: bool = False) -> bool:
    """Whether a program holds what we refuse, also in a branch that is not taken.

    Args:
        node: the program.
        differentiated: whether the whole program is differentiated.
        by_state: whether the state that enters it carries a tangent.
    """
    return (
        any(_is_refused(part) for part in parts(node))
        or (differentiated and _meets_tangents(node, by_state))
        or any(_meets_tangents(part.body) for part in parts(node) if part.kind in DERIVATIVES)
    )


def _is_refused(part):
    """A predicate or a callback that writes, a module of another root, a write below a `vmap`.

    Which of the writes in a `vmap` depend on the mapped axis is for the oracle to say.
    """
    if isinstance(part, Host):
        return part.kind.endswith("write")
    if isinstance(part, Stack):
        return part.variant in ("index", "map batched")
    if not isinstance(part, Within):
        return False
    if part.kind in (*BATCHES, "map batched"):
        return writes(part.body)
    if part.kind in ("other root reaches", "snapshot called"):
        return touches(part.body)
    if part.kind in STACKED:  # the stack is also reached as a whole
        return holds(part.body, *STACKED, *WHOLE) or any(
            isinstance(p, Stack) for p in parts(part.body)
        )
    return part.kind in ("while writes", *KEPT)


def _meets_tangents(node, by_state=False):
    """Whether state that carries a tangent can be read in a function with a rule of its own.

    A loop makes one write two. A derivative of `custom_root` is refused in any case.
    """
    several = by_state or _writers(node) > 1 or _repeats(node)
    return holds(node, "custom_root") or any(
        part.kind in SILENT and several and (touches(part) or part.kind == "custom_jvp read")
        for part in parts(node)
    )


def _repeats(node):
    return holds(node, *LOOPS, *THREADS, *STACKED, *BRANCHES, "backward two")
