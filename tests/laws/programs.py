"""Which programs are the laws tried on? Random trees of statements and transformations.

A program is a function of a scalar, `x -> y`, that reads and writes the state of some cells.
"""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

CELLS = 3


@dataclasses.dataclass(frozen=True)
class Cell:
    """A call of a cell: what it does is named by `kind`."""

    index: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Plain:
    """A function without state."""

    kind: str


@dataclasses.dataclass(frozen=True)
class Two:
    """Two programs, one after another or side by side."""

    kind: str
    first: object
    second: object


@dataclasses.dataclass(frozen=True)
class Within:
    """A program inside a transformation, with its number of trips or variant."""

    kind: str
    body: object
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """A call of each member of an ensemble of cells."""

    kind: str


CELL_KINDS = ("count", "read", "write", "accumulate", "mean", "twice", "recur", "explicit")
PLAIN_KINDS = ("sin", "affine", "square")
LOOPS = (
    "scan", "scan reverse", "scan unroll", "scan carry", "fori", "while", "while state", "map",
)  # fmt: skip
BRANCHES = ("cond", "switch")
CALLS = (
    "jit", "jit inline", "jit argument", "checkpoint", "checkpoint dots", "custom_jvp",
    "custom_vjp", "eqx.filter_jit", "eqx.filter_checkpoint", "root", "eval_shape", "callback",
)  # fmt: skip
DERIVATIVES = (
    "grad", "value_and_grad", "jvp", "vjp", "linearize", "jacfwd", "jacrev", "hessian",
    "eqx.filter_grad",
)  # fmt: skip
BATCHES = ("vmap", "vmap out", "eqx.filter_vmap")

leaves = st.one_of(
    st.builds(Cell, st.integers(0, CELLS - 1), st.sampled_from(CELL_KINDS)),
    st.builds(Cell, st.integers(0, CELLS - 1), st.sampled_from(CELL_KINDS)),
    st.builds(Plain, st.sampled_from(PLAIN_KINDS)),
    st.builds(Ensemble, st.sampled_from(("count", "accumulate", "read"))),
)


def _larger(programs):
    return st.one_of(
        st.builds(Two, st.sampled_from(("then", "plus")), programs, programs),
        st.builds(Within, st.sampled_from(LOOPS), programs, st.integers(0, 3)),
        st.builds(Two, st.sampled_from(BRANCHES), programs, programs),
        st.builds(Within, st.sampled_from(CALLS), programs),
        st.builds(Within, st.sampled_from(DERIVATIVES), programs),
        st.builds(Within, st.sampled_from(BATCHES), programs),
    )


programs = st.recursive(leaves, _larger, max_leaves=6)
