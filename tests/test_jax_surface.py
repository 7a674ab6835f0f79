"""The unstable parts of JAX that oryxstate stands on. Each fails a test of its own when it moves.

Nothing here imports oryxstate, so that what moved is named even when that cannot be imported.
"""

import ast
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback
from jax.sharding import Mesh, PartitionSpec
from surface import resolve

PACKAGE = Path(importlib.util.find_spec("oryxstate").origin).parent
DOOR = ast.parse((PACKAGE / "_jax.py").read_text())
RULES = [PACKAGE / "_jax.py", *sorted(PACKAGE.glob("_effects/rules/*.py"))]
UNSTABLE = ("jax._src.", "jax.core.", "jax.extend.", "jax.interpreters.")
VERSION = jax.__version_info__[:2]

# Names -----------------------------------------------------------------------------------------

NAMES = [
    "jax._src.callback.io_callback_p",
    "jax._src.callback.pure_callback_p",
    "jax._src.config.eager_constant_folding",
    "jax._src.core.EvalTrace",
    "jax._src.core.EvalTrace.process_primitive",
    "jax._src.core.trace_ctx",
    "jax._src.custom_batching.custom_vmap_p",
    "jax._src.custom_derivatives.remat_opt_p",
    "jax._src.debugging.debug_callback_p",
    "jax._src.effects.control_flow_allowed_effects",
    "jax._src.effects.custom_derivatives_allowed_effects",
    "jax._src.effects.lowerable_effects",
    "jax._src.effects.partial_eval_kept_effects",
    "jax._src.effects.remat_allowed_effects",
    "jax._src.hijax.call_hi_primitive_p",
    "jax._src.interpreters.ad.LinearizeTrace",
    "jax._src.interpreters.ad.LinearizeTracer",
    "jax._src.interpreters.batching.BatchTrace",
    "jax._src.interpreters.batching.BatchTracer",
    "jax._src.interpreters.batching.fancy_primitive_batchers",
    "jax._src.lax.lax._convert_element_type",
    "jax._src.pjit._pjit_call_impl_python",
    "jax._src.shard_map.shard_map_p",
    "jax._src.traceback_util.register_exclusion",
    "jax.core.Trace",
    "jax.core.Tracer",
    "jax.extend.core.ClosedJaxpr",
    "jax.extend.core.Effect",
    "jax.extend.core.Jaxpr",
    "jax.extend.core.Literal",
    "jax.extend.core.Primitive",
    "jax.extend.core.jaxpr_as_fun",
    "jax.extend.core.jaxprs_in_params",
    "jax.extend.core.primitives.cond_p",
    "jax.extend.core.primitives.custom_jvp_call_p",
    "jax.extend.core.primitives.custom_vjp_call_p",
    "jax.extend.core.primitives.jit_p",
    "jax.extend.core.primitives.linear_solve_p",
    "jax.extend.core.primitives.remat_p",
    "jax.extend.core.primitives.scan_p",
    "jax.extend.core.primitives.while_p",
    "jax.extend.core.set_current_trace",
    "jax.extend.linear_util.StoreException",
    "jax.extend.linear_util.WrappedFun",
    "jax.extend.source_info_util.register_exclusion",
    "jax.interpreters.ad.JVPTrace",
    "jax.interpreters.ad.JVPTracer",
    "jax.interpreters.ad.Zero",
    "jax.interpreters.ad.primitive_jvps",
    "jax.interpreters.mlir.lower_fun",
    "jax.interpreters.mlir.register_lowering",
]
# How functions of `lax.custom_root` are called, which is a `custom_jvp` function before.
SINCE = {"jax._src.interpreters.partial_eval.eval_jaxpr_p": (0, 11)}


@pytest.mark.parametrize("name", NAMES)
def test_name(name):
    assert resolve(name) is not None


@pytest.mark.parametrize("name", SINCE)
def test_name_of_a_later_version(name):
    if SINCE[name] <= VERSION:
        assert resolve(name) is not None
    else:
        with pytest.raises(AttributeError):
            resolve(name)


TAKE_A_NAME = "getattr", "hasattr", "_Replacement"


def used():
    """Dotted names of unstable things that `_jax.py` uses."""
    modules = {}
    for node in ast.walk(DOOR):
        if isinstance(node, ast.Import):
            modules.update((a.asname, a.name) for a in node.names if a.asname)
        elif isinstance(node, ast.ImportFrom):
            modules.update((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)
    for node in ast.walk(DOOR):
        first, *rest = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else ("",)
        if isinstance(node, ast.Name):
            yield modules.get(node.id, node.id)
        elif isinstance(node, ast.Attribute):
            yield ".".join([modules.get(first, first), *rest])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in TAKE_A_NAME:
            owner, name = node.args[0], node.args[1]
            if isinstance(name, ast.Constant) and isinstance(owner, ast.Name):
                yield f"{modules.get(owner.id, owner.id)}.{name.value}"


def test_all_names_are_tested():
    """As far as they are written with the module that they come from."""
    modules = {name.rsplit(".", 1)[0] for name in (*NAMES, *SINCE)}
    found = {name for name in used() if name.startswith(UNSTABLE)}
    # Of what is reached through an object, the object is tested.
    roots = {n for n in found if not any(n.startswith(f"{other}.") for other in (*NAMES, *SINCE))}
    assert roots - modules <= {*NAMES, *SINCE}
    assert {*NAMES, *SINCE} <= found


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
BOUND = {"subfuns", "_prim"}


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
    read = set()
    for path in RULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "params":
                read.add(node.slice.value)
    tested = set().union(*(names for _, names in PARAMS.values()))
    assert read - BOUND <= tested.union(*(one | other for _, one, other in EITHER))
