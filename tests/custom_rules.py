"""Stateful functions with a derivative of their own, in several forms, and ways to stage them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

import oryxstate as ox

P, Q, B, T = (jnp.float32(v) for v in (0.8, -0.5, 0.25, 0.4))


class Gauge(ox.Module):
    """Reads `b`, writes `t` and `n`."""

    b: Array = ox.state()
    t: Array = ox.state()
    n: Array = ox.state()

    def call(self, p, q):
        y = self.read(p, q)
        self.assign(t=0.5 * self.t + jnp.sin(p) * q, n=self.n + 1)
        return y

    def read(self, p, q):
        return p * p * q + self.b


def gauge(b=B, t=T):
    return Gauge(b, t, jnp.int32(0))


def call_by_hand(s, p, q):
    """The rules below give the derivative of `3 p^2 q`; that of the state is its own."""
    b, t, n = s
    rule = 3 * p * p * q
    y = lax.stop_gradient(p * p * q + b - rule) + rule
    return y, (b, 0.5 * t + jnp.sin(p) * q, n + 1)


def read_by_hand(s, p, q):
    return call_by_hand(s, p, q)[0], s


def slopes(p, q):
    return 6 * p * q, 3 * p * p


# The same function in several forms: `form(f)` of `f(p, q)` ---------------------------------------


def vjp(f):
    run = jax.custom_vjp(lambda p, q: f(p, q))
    run.defvjp(
        lambda p, q: (f(p, q), (p, q)),
        lambda saved, bar: tuple(bar * slope for slope in slopes(*saved)),
    )
    return run


def vjp_symbolic(f):
    """Its rule says zero where nothing is perturbed."""

    def forward(p, q):
        return f(p.value, q.value), (p.value, q.value, p.perturbed, q.perturbed)

    def backward(saved, bar):
        p, q, *perturbed = saved
        found = zip(slopes(p, q), perturbed, strict=True)
        return tuple(bar * slope if is_perturbed else None for slope, is_perturbed in found)

    run = jax.custom_vjp(lambda p, q: f(p, q))
    run.defvjp(forward, backward, symbolic_zeros=True)
    return run


def vjp_with_static(f):
    @partial(jax.custom_vjp, nondiff_argnums=(0, 2))
    def run(g, p, how, q):
        assert how == "how"
        return g(p, q)

    run.defvjp(
        lambda g, p, how, q: (g(p, q), (p, q)),
        lambda g, how, saved, bar: tuple(bar * slope for slope in slopes(*saved)),
    )
    return lambda p, q: run(lambda *args: f(*args), p, "how", q)


def vjp_again(f):
    """Its backward pass runs the stateful function once more; what that writes is dropped."""

    def backward(saved, bar):
        f(*saved)
        return tuple(bar * slope for slope in slopes(*saved))

    run = jax.custom_vjp(lambda p, q: f(p, q))
    run.defvjp(lambda p, q: (f(p, q), (p, q)), backward)
    return run


def vjp_converted(f):
    """Its functions are closed over by `jax.closure_convert`, as in solvers."""

    def of_both(p, q):
        g, constants = jax.closure_convert(lambda p, q: f(p, q), p, q)

        @jax.custom_vjp
        def run(p, q, *constants):
            return g(p, q, *constants)

        run.defvjp(
            lambda p, q, *constants: (g(p, q, *constants), (p, q, constants)),
            lambda saved, bar: (
                *(bar * slope for slope in slopes(*saved[:2])),
                *jax.tree.map(jnp.zeros_like, saved[2]),
            ),
        )
        return run(p, q, *constants)

    return of_both


def jvp(f):
    run = jax.custom_jvp(lambda p, q: f(p, q))

    @run.defjvp
    def _(primals, tangents):
        pairs = zip(slopes(*primals), tangents, strict=True)
        return f(*primals), sum(slope * dot for slope, dot in pairs)

    return run


def jvp_symbolic(f):
    run = jax.custom_jvp(lambda p, q: f(p, q))

    def rule(primals, tangents):
        out, dot = f(*primals), jnp.float32(0)
        for slope, tangent in zip(slopes(*primals), tangents, strict=True):
            if type(tangent) is not jax.custom_derivatives.SymbolicZero:
                dot = dot + slope * tangent
        return out, dot

    run.defjvp(rule, symbolic_zeros=True)
    return run


def jvp_by_argument(f):
    run = jax.custom_jvp(lambda p, q: f(p, q))
    run.defjvps(
        lambda dot, out, p, q: slopes(p, q)[0] * dot, lambda dot, out, p, q: slopes(p, q)[1] * dot
    )
    return run


def jvp_with_static(f):
    @partial(jax.custom_jvp, nondiff_argnums=(0,))
    def run(g, p, q):
        return g(p, q)

    @run.defjvp
    def _(g, primals, tangents):
        pairs = zip(slopes(*primals), tangents, strict=True)
        return g(*primals), sum(slope * dot for slope, dot in pairs)

    return partial(run, lambda *args: f(*args))


REVERSE = [vjp, vjp_symbolic, vjp_with_static, vjp_again, vjp_converted]
BOTH = [jvp, jvp_symbolic, jvp_by_argument, jvp_with_static]
FORMS = {form.__name__: form for form in (*REVERSE, *BOTH)}


# Ways to stage it ---------------------------------------------------------------------------------


def scanned(f):
    return lambda p, q: lax.scan(lambda c, x: (c + f(p * x, q), None), p, jnp.ones(2))[0]


def looped(f):
    return lambda p, q: lax.fori_loop(0, 2, lambda _, c: c + f(p, q), p)


def by_hand_looped(f):
    def run(s, p, q):
        y, s = f(s, p, q)
        z, s = f(s, p, q)
        return p + y + z, s

    return run


def condition(f):
    return lambda p, q: lax.cond(p < 9, f, lambda p, q: p, p, q)


def switch(f):
    return lambda p, q: lax.switch(jnp.int32(p < 9), [lambda p, q: p, f], p, q)


def same(f):
    return f


STAGES: dict[str, tuple[Any, Any]] = {
    "plain": (same, same),
    "jit": (jax.jit, same),
    "checkpoint": (jax.checkpoint, same),
    "jit of checkpoint": (lambda f: jax.jit(jax.checkpoint(f)), same),
    "checkpoint of jit": (lambda f: jax.checkpoint(jax.jit(f)), same),
    "scan": (scanned, by_hand_looped),
    "fori_loop": (looped, by_hand_looped),
    "scan of checkpoint": (lambda f: scanned(jax.checkpoint(f)), by_hand_looped),
    "cond": (condition, same),
    "switch of jit": (lambda f: switch(jax.jit(f)), same),
}
