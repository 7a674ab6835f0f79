"""Mutations of true derivatives, stacks, callbacks, snapshots and the identity of root calls."""

from __future__ import annotations

from typing import NamedTuple


class Broken(NamedTuple):
    """The fields of `mutations.Mutation`, with the programs of `test_found` that must fail."""

    what: str
    file: str
    old: str
    new: str
    found: str


FOUND = "tests/programs/test_found.py"

BROKEN = [
    Broken(
        "state that enters a root call is a constant for derivatives",
        "../_module/_live.py",
        "add(Name(frame.level, path, field), tuple(leaves), treedef)",
        "add(Name(frame.level, path, field), tuple(map(jax.lax.stop_gradient, leaves)), treedef)",
        "explicit or threaded or another",
    ),
    Broken(
        "a stack of modules keeps its old state",
        "rules/scan.py",
        "return [*carried, *ys], {**written, **stacked}",
        "return [*carried, *ys], {**written, **stacked, **variables.stacks_written}",
        "stack",
    ),
    Broken(
        "a callback acts on the root call that is open",
        "rules/callback.py",
        "with _frames.isolated():",
        "if True:",
        "callback",
    ),
    Broken(
        "a place belongs to whichever root call has its path",
        "_primitives.py",
        "if identity is not None and frame.level >= 0 and frame.identity != identity:",
        "if False:",
        "kept or reaches",
    ),
    Broken(
        "a snapshot stands for its place",
        "../_module/_live.py",
        "    return detach(tree, current=True)\n",
        "    return tree\n",
        "snapshot",
    ),
    Broken(
        "a rule of a custom derivative drops the tangent of state",
        "rules/custom_derivatives.py",
        "if not all(map(_tangents.is_zero, tangents[0])):",
        "if False:",
        "tangent",
    ),
    Broken(
        "a backward pass finds no live module",
        "rules/custom_derivatives.py",
        "residuals = saved\n        with _frames.replay(held, roots, collecting=False):",
        "residuals = saved\n        with _frames.replay(held, collecting=False):",
        "backward",
    ),
    Broken(
        "every argument of a custom_vjp is perturbed",
        "rules/custom_derivatives.py",
        "[leaf.perturbed for leaf in inputs[-1]]",
        "[True for leaf in inputs[-1]]",
        "tangent",
    ),
]
