"""The random programs: trees of statements and transformations.

A program is a function of a scalar, `x -> y`, that reads and writes the state of the modules in
`ours.Parts`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hypothesis import strategies as st

CELLS = 5  # three in a tuple, one in a list in a dict, one in an Equinox module
SHIFTS = (0.0, 0.5, -0.25)  # of the examples of a `vmap`, and the members of the ensemble
SLOPE = 1.5  # what custom derivatives multiply the tangent with
POSITIVE, BRANCH = 0.0123, 0.1234  # thresholds, numbers that no program computes exactly


@dataclasses.dataclass(frozen=True)
class Cell:
    """A call of a cell: what it does is named by `kind`."""

    index: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Other:
    """A call of a part with another kind of state, or a function without any."""

    kind: str


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """A call of each member of an ensemble of cells."""

    kind: str
    variant: str


@dataclasses.dataclass(frozen=True)
class Two:
    """Two programs, one after another, side by side or as branches."""

    kind: str
    first: object
    second: object


@dataclasses.dataclass(frozen=True)
class Within:
    """A program inside a transformation, with its number of trips or variant."""

    kind: str
    body: object
    number: int = 0


PLAIN = ("sin", "affine", "square", "weight")
CELL_KINDS = ("count", "read", "write", "accumulate", "mean", "twice", "recur", "explicit", "rule")
OTHERS = (*PLAIN, "tree", "tree read", "key", "reduced", "reduced twice")
LOOPS = (
    "scan", "scan reverse", "scan unroll", "scan whole", "scan without carry", "scan without xs",
    "scan carry", "fori", "fori traced", "while", "while state", "while carry",
    "while writes", "map", "map batched", "associative_scan",
)  # fmt: skip
BRANCHES = ("cond", "cond closure", "cond argument", "switch", "switch state")
CALLS = (
    "jit", "jit inline", "jit argument", "jit static", "jit donate", "jit named", "checkpoint",
    "checkpoint argument", "checkpoint policy", "custom_jvp", "custom_jvp read", "custom_vjp",
    "custom_vmap", "custom_root", "linear_solve", "root", "root update", "eval_shape", "make_jaxpr",
    "jaxpr", "callback", "eqx.filter_jit", "eqx.filter_jit argument", "eqx.filter_checkpoint",
)  # fmt: skip
DERIVATIVES = (
    "grad", "grad argument", "value_and_grad", "jvp", "vjp", "vjp aux", "linearize", "jacfwd",
    "jacrev", "hessian", "eqx.filter_grad",
)  # fmt: skip
BATCHES = ("vmap", "vmap out", "vmap argument", "vmap of same", "eqx.filter_vmap")
COLLECTIVES = ("pmean", "psum", "nested", "shard_map", "shard_map whole")

cells = st.builds(Cell, st.integers(0, CELLS - 1), st.sampled_from(CELL_KINDS))
leaves = st.one_of(
    cells,
    cells,
    cells,
    st.builds(Other, st.sampled_from(OTHERS)),
    st.builds(
        Ensemble, st.sampled_from(("count", "accumulate", "read")), st.sampled_from(("0", "-1"))
    ),
)


def _larger(programs):
    def within(kinds):
        return st.builds(Within, st.sampled_from(kinds), programs, st.integers(0, 3))

    return st.one_of(
        st.builds(Two, st.sampled_from(("then", "plus")), programs, programs),
        st.builds(Two, st.sampled_from(BRANCHES), programs, programs),
        within(LOOPS),
        within(CALLS),
        within(DERIVATIVES),
        within(BATCHES),
        within(COLLECTIVES),
    )


programs = st.recursive(leaves, _larger, max_leaves=5)


def nodes(node: object) -> Iterator[object]:
    """All parts of a program, itself first."""
    yield node
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from nodes(value)


def holds(node: object, *kinds: str) -> bool:
    """Whether a program contains a part of one of these kinds."""
    return any(part.kind in kinds for part in nodes(node))


def writes(node: object) -> bool:
    """Whether a program changes state."""
    return any(
        isinstance(part, (Cell, Ensemble, Other)) and part.kind not in (*PLAIN, "read", "tree read")
        for part in nodes(node)
    )
