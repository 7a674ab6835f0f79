"""Functions with `jax.custom_jvp` whose rules run modules again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from programs.grammar import SLOPE


def _forward(f, x, node, modules):
    """The rule differentiates the function itself."""
    function = jax.custom_jvp(f)
    function.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return function(x)


def _nondiff(f, x, node, modules):
    function = jax.custom_jvp(lambda g, x: g(x), nondiff_argnums=(0,))

    @function.defjvp
    def _(g, primals, tangents):
        return function(g, *primals), SLOPE * tangents[0]

    return function(f, x)


def _asserts(f, x, node, modules):
    """A function `(x, k) -> f(x) + k / 2`, whose rule knows that k carries no tangent."""
    function = jax.custom_jvp(lambda x, k: f(x) + 0.5 * k)

    def rule(primals, tangents):
        x_dot, k_dot = tangents
        assert _is_zero(k_dot), "an input that is not perturbed is said to be"
        if _is_zero(x_dot):
            x_dot = jnp.zeros(x_dot.shape, x_dot.dtype)
        return jax.jvp(lambda x: f(x) + 0.5 * primals[1], primals[:1], (x_dot,))

    function.defjvp(rule, symbolic_zeros=True)
    return (jax.jit(function) if node.number % 2 else function)(x, jnp.ones_like(x))


def _is_zero(tangent):
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


CALLS = {
    "forward": _forward,
    "forward nondiff": _nondiff,
    "forward asserts": _asserts,
}
