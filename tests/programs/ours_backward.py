"""Functions with `jax.custom_vjp` whose passes run modules again, as implicit solvers do."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from programs.grammar import SECOND, SLOPE


def _scanned(f):
    return lambda x: lax.scan(lambda x, _: (f(x), None), x, None, length=1)[0]


def _branched(f):
    return lambda x: lax.cond(x > x - 1, f, lambda x: x, x)


def _backward(f, x, node, modules, staged=lambda f: f):
    """The backward pass differentiates the function itself."""
    function = jax.custom_vjp(f)

    def backward(x, bar):
        return jax.vjp(staged(f), x)[1](bar)

    function.defvjp(lambda x: (function(x), x), backward)
    return function(x)


def _converted(f, x, node, modules):
    """What the function closes over is given to it explicitly."""
    converted, closed = jax.closure_convert(f, x)
    function = jax.custom_vjp(lambda g, x, *closed: g(x, *closed), nondiff_argnums=(0,))

    def backward(g, inputs, bar):
        return jax.vjp(g, *inputs)[1](bar)

    function.defvjp(lambda g, *inputs: (g(*inputs), inputs), backward)
    return function(converted, x, *closed)


def _nondiff(f, x, node, modules):
    function = jax.custom_vjp(lambda g, x: g(x), nondiff_argnums=(0,))

    def backward(g, x, bar):
        return jax.vjp(g, x)[1](bar)

    function.defvjp(lambda g, x: (g(x), x), backward)
    return function(f, x)


def _reads(f, x, node, modules):
    """The backward pass reads state, as it was before the function."""

    def held():
        return lax.stop_gradient(modules.cells[0].s)

    function = jax.custom_vjp(lambda x: 0.0 * held() + f(x))

    def backward(_, bar):
        return ((SLOPE + 0.1 * held()) * bar,)

    function.defvjp(lambda x: (function(x), None), backward)
    return function(x)


def _with_symbolic_zeros(f, check):
    """A function `(x, k) -> f(x) + k / 2`; `check` is told which of both are perturbed."""
    function = jax.custom_vjp(lambda x, k: f(x) + 0.5 * k)

    def forward(x, k):
        check(x.perturbed, k.perturbed)
        return function(x.value, k.value), None

    def backward(_, bar):
        if isinstance(bar, jax.custom_derivatives.SymbolicZero):
            bar = jnp.zeros(bar.shape, bar.dtype)
        return SLOPE * bar, SECOND * bar

    function.defvjp(forward, backward, symbolic_zeros=True)
    return function


def _two(f, x, node, modules):
    """Staged once, and differentiated with respect to one argument and to the other."""
    function = jax.jit(_with_symbolic_zeros(f, lambda *perturbed: None))
    return function(x, jnp.ones_like(x)) + function(jnp.full_like(x, 0.3), x)


def _asserts(f, x, node, modules):
    def check(x_is, k_is):
        assert not k_is, "an input that is not perturbed is said to be"

    function = _with_symbolic_zeros(f, check)
    return (jax.jit(function) if node.number % 2 else function)(x, jnp.ones_like(x))


CALLS = {
    "backward": _backward,
    "backward jit": partial(_backward, staged=jax.jit),
    "backward checkpoint": partial(_backward, staged=jax.checkpoint),
    "backward scan": partial(_backward, staged=_scanned),
    "backward cond": partial(_backward, staged=_branched),
    "backward converted": _converted,
    "backward nondiff": _nondiff,
    "backward reads": _reads,
    "backward two": _two,
    "backward asserts": _asserts,
}
