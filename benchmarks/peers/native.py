"""Each row in JAX's own transformations, in one text for every library.

`call(m, h)` calls the layer `m`. What takes arguments gets the layer as one; loops close over it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from layer import mesh
from rows import XS, Programs

NATIVE = Programs()


def call(m, h):
    return m(h)


def closure(row: str) -> dict[str, Callable]:
    """The transformed function closes over the layer."""
    if row == "vmap over an ensemble":  # only an argument can be mapped
        return {}
    return {"closure": lambda m, h: NATIVE[row](lambda _, h: m(h), (), h)}


def argument_and_closure(row: str) -> dict[str, Callable]:
    """The layer goes through the transformation as an argument, or is closed over."""
    return {"argument": partial(NATIVE[row], call), **closure(row)}


@NATIVE("jit")
def jit(call, m, h):
    return jax.jit(call)(m, h)


@NATIVE("jit, called twice")
def jit_twice(call, m, h):
    jitted = jax.jit(call)
    return jitted(m, jitted(m, h))


@NATIVE("scan")
def scan(call, m, h):
    def body(h, x):
        h = call(m, h + x)
        return h, x * h

    h, ys = lax.scan(body, h, XS)
    return h + ys.sum()


def scanned(count, call, m, h):
    return lax.scan(lambda h, _: (call(m, h), None), h, None, length=count)[0]


NATIVE["scan, no iteration"] = partial(scanned, 0)


@NATIVE("fori_loop")
def fori_loop(call, m, h):
    return lax.fori_loop(0, 3, lambda _, h: call(m, h), h)


@NATIVE("while_loop")
def while_loop(call, m, h):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, call(m, c[1])), (0, h))[1]


@NATIVE("while_loop, a write in the predicate")
def predicate(call, m, h):
    return lax.while_loop(lambda h: (call(m, h) < 9) & (h < 2), lambda h: h + 1, h)


@NATIVE("cond")
def cond(call, m, h):
    return lax.cond(h > 0, call, lambda m, h: 2 * h, m, h)


@NATIVE("switch")
def switch(call, m, h):
    branches = [call, lambda m, h: call(m, call(m, h))]
    return lax.switch((h > 0).astype(int), branches, m, h)


@NATIVE("checkpoint")
def checkpoint(call, m, h):
    return jax.checkpoint(call)(m, h)


@NATIVE("grad", "grad, through state")
def grad(call, m, h):
    return jax.grad(call, argnums=1)(m, h)


@NATIVE("grad of checkpoint", "grad of checkpoint, through state")
def grad_of_checkpoint(call, m, h):
    return jax.grad(jax.checkpoint(call), argnums=1)(m, h)


@NATIVE("grad of scan", "grad of scan, through state")
def grad_of_scan(call, m, h):
    return jax.grad(partial(scanned, 3, call), argnums=1)(m, h)


@NATIVE("value_and_grad with aux")
def value_and_grad(call, m, h):
    def loss(m, h):
        y = call(m, h)
        return y, 2 * y

    (y, aux), slope = jax.value_and_grad(loss, argnums=1, has_aux=True)(m, h)
    return y + aux + slope


@NATIVE("jvp")
def jvp(call, m, h):
    return sum(jax.jvp(lambda h: call(m, h), (h,), (jnp.ones_like(h),)))


@NATIVE("vjp")
def vjp(call, m, h):
    y, pull = jax.vjp(lambda h: call(m, h), h)
    return y + pull(jnp.ones_like(y))[0]


@NATIVE("linearize")
def linearize(call, m, h):
    y, push = jax.linearize(lambda h: call(m, h), h)
    return y + push(jnp.ones_like(h))


@NATIVE("custom_jvp")
def custom_jvp(call, m, h):
    run = jax.custom_jvp(call)
    run.defjvp(lambda primals, tangents: (call(*primals), 3 * tangents[1]))
    return sum(jax.value_and_grad(run, argnums=1)(m, h))


@NATIVE("custom_vjp")
def custom_vjp(call, m, h):
    run = jax.custom_vjp(call)
    run.defvjp(lambda m, h: (call(m, h), None), lambda _, bar: (None, 3 * bar))
    return sum(jax.value_and_grad(run, argnums=1)(m, h))


@NATIVE("custom_linear_solve")
def custom_linear_solve(call, m, h):
    def solve(_, b):
        call(m, h)
        return b / 2

    return lax.custom_linear_solve(lambda z: 2 * z, h, solve, symmetric=True)


@NATIVE("vmap, the same write for all")
def vmap_alike(call, m, h):
    return jax.vmap(lambda m, x: x * call(m, h), (None, 0))(m, XS).sum()


@NATIVE("vmap, a write for each example, to be refused")
def vmap_each(call, m, h):
    return jax.vmap(call, (None, 0))(m, h * XS).sum()


@NATIVE("vmap over an ensemble")
def ensemble(call, m, h):
    return jax.vmap(call, (0, None))(m, h).sum()


@NATIVE("shard_map on 2 devices")
def shard_map(call, m, h):
    whole, split = PartitionSpec(), PartitionSpec("d")

    @partial(jax.shard_map, mesh=mesh(), in_specs=(whole, split), out_specs=split)
    def run(m, v):
        return v * call(m, lax.pmean(v.mean(), "d"))

    return run(m, h + XS).mean()


@NATIVE("eval_shape")
def eval_shape(call, m, h):
    assert jax.eval_shape(call, m, h).shape == ()
    return 2 * h
