"""JAX's traces, tracers, functions and jaxprs are made as oryxstate takes them apart.

As in `test_jax_surface.py`, nothing here imports oryxstate.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from surface import resolve

X = jnp.float32(0.5)


def caught(transform):
    """What a function meets inside a transformation: its tracer and the current trace."""
    met = []

    def function(x):
        met.append((x, resolve("jax.extend.core.find_top_trace")(())))
        return jnp.sin(x)

    transform(function)
    return met[0]


TRANSFORMS = {
    "jvp": lambda f: jax.jvp(f, (X,), (X,)),
    "linearize": lambda f: jax.linearize(f, X),
    "vmap": lambda f: jax.vmap(f)(jnp.ones(2)),
}
PARTS = {
    "jvp": {"primal": X, "tangent": X},
    "linearize": {"primal": X},
    "vmap": {"val": jnp.ones(2), "batch_dim": 0},
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_traces_and_tracers(name):
    tracer, trace = caught(TRANSFORMS[name])
    parts = PARTS[name]
    if name == "jvp":
        assert type(trace) is resolve("jax.interpreters.ad.JVPTrace")
        assert type(tracer) is resolve("jax.interpreters.ad.JVPTracer")
    assert tracer._trace.tag is trace.tag
    with resolve("jax.core.eval_context")():
        assert trace.parent_trace is resolve("jax.extend.core.find_top_trace")(())
    for part, value in parts.items():
        np.testing.assert_array_equal(getattr(tracer, part), value)
    other = "batch_dim" if name == "vmap" else "tangent"
    again = type(tracer)(trace, getattr(tracer, next(iter(parts))), getattr(tracer, other))
    assert type(again) is type(tracer)


def test_the_trace_that_evaluates_says_which_primitive_it_runs():
    """Its method has the primitive in a local variable of this name."""
    with resolve("jax.core.eval_context")():
        evaluates = type(resolve("jax.extend.core.find_top_trace")(()))
    assert "primitive" in evaluates.process_primitive.__code__.co_varnames


def test_an_eager_jit_ends_in_the_function_that_is_replaced(monkeypatch):
    """It gets the parameters of `jit`, and answers with outputs and what JAX may keep."""
    original, met = resolve("jax._src.pjit._pjit_call_impl_python"), []

    def replaced(*args, **params):
        out = original(*args, **params)
        met.append((set(params), len(out)))
        return out

    monkeypatch.setattr(resolve("jax._src.pjit"), "_pjit_call_impl_python", replaced)
    assert jax.jit(lambda x: jnp.cos(x) + 3)(X) == jnp.cos(X) + 3
    params, outputs = met[0]
    assert params >= {"jaxpr", "name"}
    assert outputs == 4


@pytest.mark.parametrize("make", [jax.custom_jvp, jax.custom_vjp])
def test_functions_with_custom_derivatives_are_bound_with_their_rules(make, monkeypatch):
    """Functions, or `WrappedFun`s whose stores can be emptied."""
    primitive = resolve(f"jax.extend.core.primitives.{make.__name__}_call_p")
    met, original = [], primitive.bind_with_trace

    def replaced(trace, args, avals, params, /):
        met.extend(params["subfuns"])
        return original(trace, args, avals, params)

    monkeypatch.setattr(primitive, "bind_with_trace", replaced)
    function = make(lambda x: jnp.sin(x))
    if make is jax.custom_jvp:
        function.defjvp(lambda xs, dots: (jnp.sin(xs[0]), dots[0]))
    else:
        function.defvjp(lambda x: (jnp.sin(x), None), lambda _, bar: (bar,))
    np.testing.assert_allclose(function(X), jnp.sin(X))
    assert len(met) >= 2
    for fun in met:
        if isinstance(fun, resolve("jax.extend.linear_util.WrappedFun")):
            assert {"f", "transforms", "stores", "params", "debug_info"} <= set(dir(fun))
            assert all(hasattr(store, "reset") for store in fun.stores if store is not None)
        else:
            assert callable(fun)


def test_a_high_level_primitive_can_be_expanded():
    """`lax.custom_root` is one from JAX 0.11.2."""
    (eqn,) = jax.make_jaxpr(
        lambda x: lax.custom_root(
            lambda y: y - x, x, lambda f, y: y - f(y), lambda g, y: y / g(jnp.float32(1))
        )
    )(X).eqns
    if jax.__version_info__ < (0, 11, 2):
        assert eqn.primitive is resolve("jax.extend.core.primitives.custom_jvp_call_p")
        return
    assert eqn.primitive.name == "call_hi_primitive"
    primitive = eqn.params["_prim"]
    assert type(primitive).__name__ == "CustomRoot"
    assert {"expand", "jvp", "in_tree"} <= set(dir(primitive))


def test_jaxprs():
    """Of a `checkpoint` it may be open or closed; of the others it is closed."""
    closed = jax.make_jaxpr(lambda x: jax.checkpoint(jnp.sin)(x))(X)
    for jaxpr in (closed, closed.eqns[0].params["jaxpr"]):
        assert hasattr(jaxpr, "effects") and hasattr(jaxpr, "eqns")
        opened = getattr(jaxpr, "jaxpr", jaxpr)
        assert all(hasattr(opened, part) for part in ("invars", "outvars", "constvars", "eqns"))
    cond = jax.make_jaxpr(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x))(X).eqns[-1]
    assert len(list(resolve("jax.extend.core.jaxprs_in_params")(cond.params))) == 2


def test_values_say_along_which_axes_of_a_mesh_they_vary():
    met = []
    jax.shard_map(
        lambda x: (met.append(jax.typeof(x)), x)[1],
        mesh=Mesh(np.array(jax.devices()[:2]), ("d",)),
        in_specs=PartitionSpec("d"),
        out_specs=PartitionSpec("d"),
    )(jnp.ones(2))
    assert met[0].mat.varying == {"d"} and not jax.typeof(X).mat.varying


def test_weak_types():
    cast = resolve("jax.extend.core.primitives.convert_element_type_p")
    for weak in (True, False):
        params = {"new_dtype": X.dtype, "weak_type": weak, "sharding": None}
        assert cast.bind(X, **params).weak_type is weak


def with_jvp():
    function = jax.custom_jvp(jnp.sin)
    function.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))
    return function


def with_vjp():
    function = jax.custom_vjp(lambda x: jnp.sin(x))
    function.defvjp(lambda x: (jnp.sin(x), x), lambda x, bar: (bar,))
    return function


# JAX's new implementations, behind flags: the class of each, and what is read of it.
NEW = {
    "remat3": (lambda: jax.checkpoint(jnp.sin), "RematTraced", {"jaxpr", "policy"}),
    "custom_jvp3": (with_jvp, "CustomJVPTraced", {"jvp"}),
    "custom_vjp3": (with_vjp, "CustomVJPTraced", {"vjp_fwd", "bwd", "params"}),
}


@pytest.mark.parametrize("flag", NEW)
def test_new_implementations(flag):
    make, kind, attributes = NEW[flag]
    if not hasattr(jax.config, f"jax_{flag}"):
        with pytest.raises(AttributeError):
            resolve(f"jax._src.config.{flag}")
        return
    with resolve(f"jax._src.config.{flag}")(True):
        # Made there: up to 0.11 the decorator looks at the flag, not the call.
        (equation,) = jax.make_jaxpr(lambda x: make()(x))(X).eqns
    primitive = equation.params["_prim"]
    assert type(primitive).__name__ == kind
    known = {"in_tree", "out_tree", "in_avals_flat", "effects", "expand"}
    assert all(hasattr(primitive, name) for name in attributes | known)
