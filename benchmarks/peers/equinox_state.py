"""The rows in Equinox: in JAX's transformations, where the user threads a `State`."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from layer import Column, arrays, mesh, output, updated, zero_tangents
from rows import XS, Programs


class Layer(eqx.Module):
    scale: jax.Array
    index: eqx.nn.StateIndex
    through: bool = eqx.field(static=True)

    def __init__(self, scale, total, count, through):
        self.scale, self.through = scale, through
        self.index = eqx.nn.StateIndex((total, count))

    def __call__(self, s, h):
        s = s.set(self.index, updated(*s.get(self.index), h, self.through))
        return output(self.scale, s.get(self.index)[0], h), s


def start(row, program, jitted):
    m, s = eqx.nn.make_with_state(Layer)(*arrays(row), row.through)
    run = jax.jit(program) if jitted else program

    def step(h):
        nonlocal s
        y, s = run(m, s, h)
        return y, *s.get(m.index)

    return step


def call(m, s, h):
    return m(s, h)


BY_HAND = Programs()
BY_HAND["jit"] = lambda m, s, h: jax.jit(call)(m, s, h)
BY_HAND["checkpoint"] = lambda m, s, h: jax.checkpoint(call)(m, s, h)
BY_HAND["cond"] = lambda m, s, h: lax.cond(h > 0, call, lambda m, s, h: (2 * h, s), m, s, h)


@BY_HAND("jit, called twice")
def jit_twice(m, s, h):
    jitted = jax.jit(call)
    h, s = jitted(m, s, h)
    return jitted(m, s, h)


@BY_HAND("scan")
def scan(m, s, h):
    def body(carry, x):
        h, s = carry
        h, s = m(s, h + x)
        return (h, s), x * h

    (h, s), ys = lax.scan(body, (h, s), XS)
    return h + ys.sum(), s


def scanned(count, m, s, h):
    return lax.scan(lambda c, _: (m(c[1], c[0]), None), (h, s), None, length=count)[0]


BY_HAND["scan, no iteration"] = partial(scanned, 0)


@BY_HAND("fori_loop")
def fori_loop(m, s, h):
    return lax.fori_loop(0, 3, lambda _, c: m(c[1], c[0]), (h, s))


@BY_HAND("while_loop")
def while_loop(m, s, h):
    def body(carry):
        i, h, s = carry
        return i + 1, *m(s, h)

    return lax.while_loop(lambda c: c[0] < 3, body, (0, h, s))[1:]


@BY_HAND("switch")
def switch(m, s, h):
    def twice(m, s, h):
        h, s = m(s, h)
        return m(s, h)

    return lax.switch((h > 0).astype(int), [call, twice], m, s, h)


@BY_HAND("grad", "grad, through state")
def grad(m, s, h):
    return jax.grad(call, argnums=2, has_aux=True)(m, s, h)


@BY_HAND("grad of checkpoint", "grad of checkpoint, through state")
def grad_of_checkpoint(m, s, h):
    return jax.grad(jax.checkpoint(call), argnums=2, has_aux=True)(m, s, h)


@BY_HAND("grad of scan", "grad of scan, through state")
def grad_of_scan(m, s, h):
    return jax.grad(partial(scanned, 3), argnums=2, has_aux=True)(m, s, h)


@BY_HAND("value_and_grad with aux")
def value_and_grad(m, s, h):
    def loss(m, s, h):
        y, s = m(s, h)
        return y, (2 * y, s)

    (y, (aux, s)), slope = jax.value_and_grad(loss, argnums=2, has_aux=True)(m, s, h)
    return y + aux + slope, s


@BY_HAND("jvp")
def jvp(m, s, h):
    y, dot, s = jax.jvp(lambda h: m(s, h), (h,), (jnp.ones_like(h),), has_aux=True)
    return y + dot, s


@BY_HAND("vjp")
def vjp(m, s, h):
    y, pull, s = jax.vjp(lambda h: m(s, h), h, has_aux=True)
    return y + pull(jnp.ones_like(y))[0], s


@BY_HAND("linearize")
def linearize(m, s, h):
    y, push, s = jax.linearize(lambda h: m(s, h), h, has_aux=True)
    return y + push(jnp.ones_like(h)), s


@BY_HAND("custom_jvp")
def custom_jvp(m, s, h):
    def rule(primals, tangents):
        y, s = call(*primals)
        return (y, s), (3 * tangents[2], zero_tangents(s))

    run = jax.custom_jvp(call)
    run.defjvp(rule)
    (y, s), slope = jax.value_and_grad(run, argnums=2, has_aux=True)(m, s, h)
    return y + slope, s


@BY_HAND("custom_vjp")
def custom_vjp(m, s, h):
    run = jax.custom_vjp(call)
    run.defvjp(lambda m, s, h: (m(s, h), None), lambda _, bars: (None, None, 3 * bars[0]))
    (y, s), slope = jax.value_and_grad(run, argnums=2, has_aux=True)(m, s, h)
    return y + slope, s


@BY_HAND("custom_linear_solve")
def custom_linear_solve(m, s, h):
    def solve(_, b):
        copy = jax.tree.map(lambda x: x, s)  # JAX traces this twice, a `State` is used but once
        return b / 2, m(copy, h)[1]

    return lax.custom_linear_solve(lambda z: 2 * z, h, solve, symmetric=True, has_aux=True)


@BY_HAND("vmap, the same write for all")
def vmap_alike(m, s, h):
    def example(x):
        y, new = m(s, h)
        return x * y, new

    ys, s = jax.vmap(example, out_axes=(0, None))(XS)
    return ys.sum(), s


@BY_HAND("vmap, a write for each example, to be refused")
def vmap_each(m, s, h):
    ys, s = jax.vmap(call, (None, None, 0), (0, None))(m, s, h * XS)
    return ys.sum(), s


@BY_HAND("vmap over an ensemble")
def ensemble(m, s, h):
    ys, s = jax.vmap(call, (0, 0, None))(m, s, h)
    return ys.sum(), s


@BY_HAND("shard_map on 2 devices")
def shard_map(m, s, h):
    whole, split = PartitionSpec(), PartitionSpec("d")
    specs = {"in_specs": (whole, whole, split), "out_specs": (split, whole)}

    @partial(jax.shard_map, mesh=mesh(), **specs)
    def run(m, s, v):
        y, s = m(s, lax.pmean(v.mean(), "d"))
        return v * y, s

    ys, s = run(m, s, h + XS)
    return ys.mean(), s


@BY_HAND("eval_shape")
def eval_shape(m, s, h):
    assert jax.eval_shape(call, m, s, h)[0].shape == ()
    return 2 * h, s


def native(row):
    return {"by hand": BY_HAND[row]} if row in BY_HAND else {}


COLUMNS = {"Equinox `State`": Column(("equinox",), start, native, word="by hand")}
