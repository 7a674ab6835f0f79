"""Transformations that only call a function, each with its meaning by hand."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rows import Row, hand_loop

ROWS: dict[str, Row] = {}


def static_calls(f):
    def run(m, h, count, *, flag):
        for _ in range(count):
            h = f.step(m, h)
        return h if flag == "yes" else None

    jitted = jax.jit(run, static_argnums=2, static_argnames="flag")
    return lambda m, h: jitted(m, h, 2, flag="yes")


def donated(f):
    jitted = jax.jit(f.step, donate_argnums=1)
    return lambda m, h: jitted(m, jnp.array(h, copy=True))


def callback(f):
    def run(m, h):
        h = f.step(m, h)
        out = jax.ShapeDtypeStruct((), jnp.float32)
        stopped = lax.stop_gradient(h)
        return h + jax.pure_callback(np.sin, out, stopped, vmap_method="sequential")

    return run


def hand_callback(f):
    def run(s, h):
        h, s = f.hand(s, h)
        return h + lax.stop_gradient(jnp.sin(h)), s

    return run


def only_traced(trace):
    def ours(f):
        def run(m, h):
            assert trace(f.step, m, h) == ((), jnp.float32)
            return 2 * h

        return run

    return Row(ours, lambda f: lambda s, h: (2 * h, s))


def traced_eval_shape(step, m, h):
    out = jax.eval_shape(step, m, h)
    return out.shape, out.dtype


def traced_jaxpr(step, m, h):
    (out,) = jax.make_jaxpr(step)(m, h).out_avals
    return out.shape, out.dtype


ROWS["no transformation"] = Row(lambda f: f.step)
ROWS["jit"] = Row(lambda f: jax.jit(f.step))
ROWS["jit inline"] = Row(lambda f: jax.jit(f.step, inline=True))
ROWS["jit static"] = Row(static_calls, hand_loop(2))
ROWS["jit donated"] = Row(donated)
ROWS["filter_jit"] = Row(lambda f: eqx.filter_jit(f.step))
ROWS["pure_callback"] = Row(callback, hand_callback)
ROWS["eval_shape"] = only_traced(traced_eval_shape)
ROWS["make_jaxpr"] = only_traced(traced_jaxpr)
