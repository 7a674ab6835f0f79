"""The random programs: trees of statements and transformations.

A program is a function of a scalar, `x -> y`, that reads and writes the state of the modules in
`ours.Parts`.
"""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

CELLS = 5  # three in a tuple, one in a list in a dict, one in an Equinox module
SHIFTS = (0.0, 0.5, -0.25)  # of the examples of a `vmap`, and the members of the ensemble
SLOPE = 1.5  # what custom derivatives multiply the tangent with
SECOND = 2.0  # the same for a second input
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
class Stack:
    """A call of each layer of a stack of cells, or of a container of stacks."""

    kind: str
    variant: str


@dataclasses.dataclass(frozen=True)
class Host:
    """A callback that is handed a cell: `kind` names the door and what is done behind it."""

    kind: str


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
CELL_KINDS = (
    "count", "read", "write", "accumulate", "mean", "twice", "recur", "rule",
    "explicit", "explicit loop", "explicit scan", "explicit fori",
)  # fmt: skip
OTHERS = (*PLAIN, "tree", "tree read", "key", "reduced", "reduced twice")
LAYER_KINDS = ("count", "read", "accumulate", "twice", "explicit")
STACKS = (
    "scan", "scan reverse", "scan unroll", "scan whole", "scan checkpoint", "scan jit",
    "scan twice", "scan nested", "scan container", "scan several", "map", "map container",
    "map batched", "index",
)  # fmt: skip
HOSTS = tuple(f"{door} {use}" for door in ("pure", "io", "debug") for use in ("read", "write"))
HOSTS += ("pure snapshot", "io snapshot")
LOOPS = (
    "scan", "scan reverse", "scan unroll", "scan whole", "scan without carry", "scan without xs",
    "scan carry", "fori", "fori traced", "while", "while state", "while carry",
    "while writes", "map", "map batched", "associative_scan",
)  # fmt: skip
BRANCHES = ("cond", "cond closure", "cond argument", "switch", "switch state")
CALLS = (
    "jit", "jit inline", "jit argument", "jit static", "jit donate", "jit named", "checkpoint",
    "checkpoint argument", "checkpoint policy", "custom_jvp", "custom_jvp read", "custom_vjp",
    "custom_vmap", "custom_root", "linear_solve", "eval_shape", "make_jaxpr",
    "jaxpr", "callback", "eqx.filter_jit", "eqx.filter_jit argument", "eqx.filter_checkpoint",
)  # fmt: skip
DERIVATIVES = (
    "grad", "grad argument", "value_and_grad", "jvp", "vjp", "vjp aux", "linearize", "jacfwd",
    "jacrev", "hessian", "eqx.filter_grad",
)  # fmt: skip
BATCHES = ("vmap", "vmap out", "vmap argument", "vmap of same", "eqx.filter_vmap")
COLLECTIVES = ("pmean", "psum", "nested", "shard_map", "shard_map whole")
STACKED = ("stacked", "stacked reverse", "stacked map", "stacked cond", "stacked grad")
THREADS = (
    "thread", "thread jit", "thread scan", "thread live", "thread fori", "thread while",
    "thread grad",
)  # fmt: skip
ROOTS = (
    "root", "root update", "other root", "other root argument", "other root shared",
    "other root reaches",
)  # fmt: skip
KEPT = ("kept live", "kept value", "kept in jit", "kept own", "kept earlier", "kept function")
SNAPSHOTS = ("snapshot stays", "snapshot change", "snapshot called", "snapshot traced")
BACKWARD = (
    "backward", "backward jit", "backward checkpoint", "backward scan", "backward cond",
    "backward converted", "backward nondiff", "backward reads", "backward two", "backward asserts",
)  # fmt: skip
FORWARD = ("forward", "forward nondiff", "forward asserts")

cells = st.builds(Cell, st.integers(0, CELLS - 1), st.sampled_from(CELL_KINDS))
leaves = st.one_of(
    cells,
    cells,
    cells,
    st.builds(Other, st.sampled_from(OTHERS)),
    st.builds(
        Ensemble, st.sampled_from(("count", "accumulate", "read")), st.sampled_from(("0", "-1"))
    ),
    st.builds(Stack, st.sampled_from(LAYER_KINDS), st.sampled_from(STACKS)),
    st.builds(Host, st.sampled_from(HOSTS)),
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
        within(STACKED),
        within(THREADS),
        within((*ROOTS, *KEPT)),
        within(SNAPSHOTS),
        within(BACKWARD),
        within(FORWARD),
    )


programs = st.recursive(leaves, _larger, max_leaves=5)
