"""Programs inside calls and derivatives, with JAX's own functions."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxpr_as_fun
from programs.grammar import SLOPE

_POLICIES = jax.checkpoint_policies
POLICIES = (
    _POLICIES.nothing_saveable,
    _POLICIES.everything_saveable,
    _POLICIES.dots_with_no_batch_dims_saveable,
    _POLICIES.save_only_these_names("y"),
)


@functools.cache
def on_argument(node):
    """A program as a function of its modules, the same each time, so that JAX caches its trace."""
    return lambda modules, x: modules(node, x)


@functools.cache
def _transformed(transformation, node):
    return transformation(on_argument(node))


def _argument(transformation):
    return lambda f, x, node, modules: _transformed(transformation, node.body)(modules, x)


def _by(transformation):
    return lambda f, x, node, modules: transformation(f)(x)


def _jit_static(f, x, node, modules):
    return jax.jit(lambda x, factor: f(x) * factor, static_argnums=1)(x, 1.0)


def _checkpoint_policy(f, x, node, modules):
    def named(x):
        return checkpoint_name(f(x), "y")

    policy = POLICIES[node.number]
    return jax.checkpoint(named, policy=policy, prevent_cse=node.number % 2 == 0)(x)


def _custom_jvp(f):
    function = jax.custom_jvp(f)
    function.defjvp(lambda primals, tangents: (function(*primals), SLOPE * tangents[0]))
    return function


def _custom_jvp_read(f, x, node, modules):
    """The rule reads state, as it was before the function."""

    def held():
        return lax.stop_gradient(modules.cells[0].s)

    function = jax.custom_jvp(lambda x: 0.0 * held() + f(x))

    @function.defjvp
    def _(primals, tangents):
        slope = SLOPE + 0.1 * held()
        return function(*primals), slope * tangents[0]

    return function(x)


def _custom_vjp(f):
    function = jax.custom_vjp(f)
    function.defvjp(lambda x: (function(x), None), lambda _, bar: (SLOPE * bar,))
    return function


def _custom_vmap(f):
    function = jax.custom_batching.custom_vmap(f)

    @function.def_vmap
    def _(axis_size, in_batched, x):
        # JAX asks the rule where tangents alone are mapped too.
        return (jax.vmap(f)(x), True) if in_batched[0] else (f(x), False)

    return function


def _custom_root(f, x, node, modules):
    zero = jnp.zeros_like(x)
    return lax.custom_root(
        lambda z: z - f(x), zero, lambda g, z: z - g(z), lambda g, y: y / g(jnp.ones_like(y))
    )


def _linear_solve(f, x, node, modules):
    def solve(_, b):
        return 0.5 * b + 0.0 * f(b)

    return lax.custom_linear_solve(
        lambda z: 2.0 * z, x, solve, transpose_solve=lambda _, b: 0.5 * b
    )


def _eval_shape(f, x, node, modules):
    assert jax.eval_shape(f, x).shape == x.shape
    return x


def _make_jaxpr(f, x, node, modules):
    jax.make_jaxpr(f)(x)
    return x


def _jaxpr(f, x, node, modules):
    return jaxpr_as_fun(jax.make_jaxpr(f)(x))(x)[0]


def _callback(f, x, node, modules):
    y = lax.stop_gradient(f(x))
    shape = jax.ShapeDtypeStruct((), y.dtype)
    return jax.pure_callback(np.asarray, shape, y, vmap_method="sequential") + x


CALLS = {
    "jit": _by(jax.jit),
    "jit inline": _by(functools.partial(jax.jit, inline=True)),
    "jit argument": _argument(jax.jit),
    "jit static": _jit_static,
    "jit donate": lambda f, x, node, modules: jax.jit(f, donate_argnums=0)(x + 0.0),
    "jit named": lambda f, x, node, modules: jax.jit(jax.named_call(f, name="named"))(x),
    "checkpoint": _by(jax.checkpoint),
    "checkpoint argument": _argument(jax.checkpoint),
    "checkpoint policy": _checkpoint_policy,
    "custom_jvp": _by(_custom_jvp),
    "custom_jvp read": _custom_jvp_read,
    "custom_vjp": _by(_custom_vjp),
    "custom_vmap": _by(_custom_vmap),
    "custom_root": _custom_root,
    "linear_solve": _linear_solve,
    "eval_shape": _eval_shape,
    "make_jaxpr": _make_jaxpr,
    "jaxpr": _jaxpr,
    "callback": _callback,
    "eqx.filter_jit": _by(eqx.filter_jit),
    "eqx.filter_jit argument": _argument(eqx.filter_jit),
    "eqx.filter_checkpoint": _by(eqx.filter_checkpoint),
}


def _value_and_grad(f, x, node, modules):
    (y, _), slope = jax.value_and_grad(lambda x: (f(x), x), has_aux=True)(x)
    return y + slope


def _grad_argument(f, x, node, modules):
    return jax.grad(on_argument(node.body), argnums=1)(modules, x)


def _jvp(f, x, node, modules):
    y, slope = jax.jvp(f, (x,), (2.0 * jnp.ones_like(x),))
    return y * 0.5 + slope


def _vjp(f, x, node, modules):
    y, pull = jax.vjp(f, x)
    return y * 0.5 + pull(2.0 * jnp.ones_like(y))[0]


def _vjp_aux(f, x, node, modules):
    y, pull, aux = jax.vjp(lambda x: (f(x), x), x, has_aux=True)
    return y * 0.5 + pull(2.0 * jnp.ones_like(y))[0] + 0.0 * aux


def _linearize(f, x, node, modules):
    y, slope = jax.linearize(f, x)
    return y * 0.5 + slope(2.0 * jnp.ones_like(x))


DERIVATIVES = {
    "grad": _by(jax.grad),
    "grad argument": _grad_argument,
    "value_and_grad": _value_and_grad,
    "jvp": _jvp,
    "vjp": _vjp,
    "vjp aux": _vjp_aux,
    "linearize": _linearize,
    "jacfwd": _by(jax.jacfwd),
    "jacrev": _by(jax.jacrev),
    "hessian": _by(jax.hessian),
    "eqx.filter_grad": _by(eqx.filter_grad),
}
