"""The unstable parts of JAX that oryxstate stands on. Each fails a test of its own when it moves.

Nothing here imports oryxstate, so that what moved is named even when that cannot be imported.
"""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import surface
from jax import lax
from jax.experimental import io_callback
from jax.sharding import Mesh, PartitionSpec
from surface import PACKAGE, table

DOOR = ast.parse((PACKAGE / "_jax.py").read_text())
UNSTABLE = ("jax._src.", "jax.core.", "jax.extend.", "jax.interpreters.", "jax.experimental.")

# Names -----------------------------------------------------------------------------------------

NAMES = [*table.PRIVATE, *table.PUBLIC]


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.name)
def test_name(row):
    """It is there, and is called as it was."""
    assert table.broken_name(row) is None


@pytest.mark.parametrize("name", table.PRIMITIVES)
def test_primitive_that_is_found_by_name(name):
    assert table.broken_primitive(name) is None


@pytest.mark.parametrize("name", table.TRANSFORMATIONS)
def test_tracers(name):
    assert table.broken_transformation(name) is None


TAKE_A_NAME = "getattr", "hasattr"


def modules():
    """What names of modules, and of things in them, stand for in `_jax.py`."""
    found = {}
    for node in ast.walk(DOOR):
        if isinstance(node, ast.Import):
            found.update((a.asname, a.name) for a in node.names if a.asname)
        elif isinstance(node, ast.ImportFrom):
            found.update((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)
    return found


def used():
    """Dotted names of unstable things that `_jax.py` uses."""
    stands_for = modules()
    for node in ast.walk(DOOR):
        if isinstance(node, ast.Name):
            yield stands_for.get(node.id, node.id)
        elif isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            yield ".".join([stands_for.get(first, first), *rest])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in TAKE_A_NAME:
            owner, name = node.args[0], node.args[1]
            if isinstance(name, ast.Constant) and isinstance(owner, ast.Name):
                yield f"{stands_for.get(owner.id, owner.id)}.{name.value}"
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:  # an owner and a name
            owner, name = node.elts
            if isinstance(owner, ast.Name) and isinstance(name, ast.Constant):
                yield f"{stands_for.get(owner.id, owner.id)}.{name.value}"


def test_all_names_are_tested():
    """As far as they are written with the module that they come from."""
    listed = {row.name for row in NAMES}
    within = {name.rpartition(".")[0] for name in listed}  # the modules, and classes with methods
    found = {name for name in used() if name.startswith(UNSTABLE)}
    # Of what is reached through an object, the object is tested.
    roots = {n for n in found if not any(n.startswith(f"{other}.") for other in listed)}
    assert roots - within <= listed
    methods = {name for name in listed if name.rpartition(".")[0] in listed}
    assert listed - methods <= found


def test_the_door_is_small():
    assert len((PACKAGE / "_jax.py").read_text().splitlines()) <= 350
    private = [
        node
        for node in ast.walk(DOOR)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jax._src")
    ]
    assert sum(len(node.names) for node in private) <= 6


def test_private_names_say_since_when_and_what_would_replace_them():
    assert all(row.name.startswith("jax._src.") for row in table.PRIVATE)
    assert all(row.purpose and row.since and row.instead for row in table.PRIVATE)
    assert not any(row.name.startswith("jax._src.") for row in table.PUBLIC)


def test_the_page_is_made_from_the_table():
    """If not, run `python tests/surface.py --write`."""
    assert surface.PAGE.read_text() == surface.page()


# Parameters of primitives ----------------------------------------------------------------------

X = jnp.float32(0.5)


def mesh():
    return Mesh(np.array(jax.devices()[:1]), ("d",))


@jax.custom_batching.custom_vmap
def with_vmap_rule(x):
    return jnp.sin(x)


@with_vmap_rule.def_vmap
def _(axis_size, batched, x):
    return jnp.sin(x), batched[0]


def solve(x):
    return lax.custom_linear_solve(lambda y: 2 * y, x, lambda f, b: b / 2, symmetric=True)


# The primitive, a function that binds it, and the parameters that are read.
PARAMS = {
    "jit": (
        jax.jit(jnp.sin),
        {"jaxpr", "name", "inline", "keep_unused", "in_shardings", "out_shardings"},
    ),
    "scan": (
        lambda x: lax.scan(lambda c, x: (c + x, c), x, jnp.ones(2)),
        {"jaxpr", "length", "reverse", "unroll"},
    ),
    "while": (
        lambda x: lax.while_loop(lambda c: c < 3, jnp.exp, x),
        {"cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts"},
    ),
    "cond": (lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x), {"branches"}),
    "remat2": (jax.checkpoint(jnp.sin), {"jaxpr", "policy", "prevent_cse"}),
    "custom_vmap_call": (with_vmap_rule, {"call", "rule", "in_tree"}),
    "custom_linear_solve": (solve, {"jaxprs", "const_lengths"}),
    "shard_map": (
        jax.shard_map(
            jnp.sin, mesh=mesh(), in_specs=PartitionSpec(), out_specs=PartitionSpec()
        ),
        {"jaxpr", "mesh", "in_specs", "out_specs", "check_vma"},
    ),
}  # fmt: skip
PARAMS |= {
    name: (lambda x, call=call: call(lambda x: np.asarray(x), x), {"callback"})
    for name, call in {
        "pure_callback": lambda f, x: jax.pure_callback(f, x, x),
        "io_callback": lambda f, x: io_callback(f, x, x),
        "debug_callback": jax.debug.callback,
    }.items()
}
# What a version calls it; any one of them is there.
EITHER = [
    ("scan", {"num_consts", "num_carry"}, {"ft_in"}),
    ("shard_map", {"newly_manual_axes"}, {"manual_axes"}),
]
# Of what a primitive is bound with before it is staged.
BOUND = {"subfuns", "_prim"}.union(*(row.keywords for row in table.PUBLIC))
# Of our own primitives.
OURS = {"var", "identity", "declare", "shape", "staged", "form", "names", "out_avals", "new_avals"}


def equation(name):
    (found,) = (e for e in jax.make_jaxpr(PARAMS[name][0])(X).eqns if e.primitive.name == name)
    return found


@pytest.mark.parametrize("name", PARAMS)
def test_parameters(name):
    assert set(equation(name).params) >= PARAMS[name][1]


@pytest.mark.parametrize(("name", "one", "other"), EITHER)
def test_parameters_that_were_renamed(name, one, other):
    params = set(equation(name).params)
    assert params >= one or params >= other
    assert "ft_in" not in params or len(equation(name).params["ft_in"].unpack()) == 3


def test_all_parameters_are_tested():
    """Of `params`, `eqn.params` or `self._params`, in the whole package."""
    nodes = (n for path in PACKAGE.rglob("*.py") for n in ast.walk(ast.parse(path.read_text())))
    read = {
        node.slice.value
        for node in nodes
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and ast.unparse(node.value).endswith("params")
    }
    tested = set().union(*(names for _, names in PARAMS.values()))
    tested = tested.union(*(one | other for _, one, other in EITHER))
    assert read - BOUND - OURS <= tested
    assert {"in_specs", "symbolic_zeros"} <= read
