"""The rows in Flax NNX: in JAX's transformations, and in its own of the same names."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec
from layer import Column, arrays, mesh, output, updated, zero_tangents
from native import argument_and_closure, call
from rows import XS, Programs


class Layer(nnx.Module):
    def __init__(self, row, **kind):
        scale, total, count = arrays(row)
        self.scale = nnx.Param(scale, **kind)
        self.total = nnx.BatchStat(total, **kind)
        self.count = nnx.Variable(count, **kind)
        self.through = row.through

    def __call__(self, h):
        self.total[...], self.count[...] = updated(
            self.total[...], self.count[...], h, self.through
        )
        return output(self.scale[...], self.total[...], h)


def start(row, program, jitted, jit=nnx.jit, **kind):
    m = Layer(row, **kind)
    run = jit(program) if jitted else program

    def step(h):
        y = run(m, h)
        return y, m.total[...], m.count[...]

    return step


OWN = Programs()
OWN["jit"] = lambda m, h: nnx.jit(call)(m, h)
OWN["checkpoint"] = lambda m, h: nnx.remat(call)(m, h)
OWN["cond"] = lambda m, h: nnx.cond(h > 0, call, lambda m, h: 2 * h, m, h)
OWN["vmap over an ensemble"] = lambda m, h: nnx.vmap(call, in_axes=(0, None))(m, h).sum()


@OWN("jit, called twice")
def jit_twice(m, h):
    jitted = nnx.jit(call)
    return jitted(m, jitted(m, h))


@OWN("scan")
def scan(m, h):
    @nnx.scan
    def body(carry, x):
        m, h = carry
        h = m(h + x)
        return (m, h), x * h

    (_, h), ys = body((m, h), XS)
    return h + ys.sum()


def scanned(count, m, h):
    @nnx.scan(length=count, in_axes=nnx.Carry, out_axes=nnx.Carry)
    def body(carry):
        m, h = carry
        return m, m(h)

    return body((m, h))[1]


OWN["scan, no iteration"] = partial(scanned, 0)


@OWN("fori_loop")
def fori_loop(m, h):
    return nnx.fori_loop(0, 3, lambda _, c: (c[0], c[0](c[1])), (m, h))[1]


@OWN("while_loop")
def while_loop(m, h):
    def body(carry):
        i, m, h = carry
        return i + 1, m, m(h)

    return nnx.while_loop(lambda c: c[0] < 3, body, (0, m, h))[2]


@OWN("while_loop, a write in the predicate")
def predicate(m, h):
    def more(carry):
        m, h = carry
        return (m(h) < 9) & (h < 2)

    return nnx.while_loop(more, lambda c: (c[0], c[1] + 1), (m, h))[1]


@OWN("switch")
def switch(m, h):
    branches = [call, lambda m, h: call(m, call(m, h))]
    return nnx.switch((h > 0).astype(int), branches, m, h)


@OWN("grad", "grad, through state")
def grad(m, h):
    return nnx.grad(call, argnums=1)(m, h)


@OWN("grad of checkpoint", "grad of checkpoint, through state")
def grad_of_checkpoint(m, h):
    return nnx.grad(nnx.remat(call), argnums=1)(m, h)


@OWN("grad of scan", "grad of scan, through state")
def grad_of_scan(m, h):
    return nnx.grad(partial(scanned, 3), argnums=1)(m, h)


@OWN("value_and_grad with aux")
def value_and_grad(m, h):
    def loss(m, h):
        y = m(h)
        return y, 2 * y

    (y, aux), slope = nnx.value_and_grad(loss, argnums=1, has_aux=True)(m, h)
    return y + aux + slope


@OWN("jvp")
def jvp(m, h):
    tangents = zero_tangents(m), jnp.ones_like(h)
    return sum(nnx.jvp(call, (m, h), tangents, graph_updates=False))


@OWN("vjp")
def vjp(m, h):
    y, pull = nnx.vjp(call, m, h, graph_updates=False)
    return y + pull(jnp.ones_like(y))[1]


@OWN("custom_vjp")
def custom_vjp(m, h):
    def backward(_, bars):
        (updates, _), bar = bars
        return updates, 3 * bar

    run = nnx.custom_vjp(call)
    run.defvjp(lambda m, h: (call(m, h), None), backward)
    return sum(nnx.value_and_grad(run, argnums=1)(m, h))


@OWN("vmap, the same write for all")
def vmap_alike(m, h):
    return nnx.vmap(lambda m, x: x * m(h), in_axes=(None, 0))(m, jnp.asarray(XS)).sum()


@OWN("vmap, a write for each example, to be refused")
def vmap_each(m, h):
    return nnx.vmap(call, in_axes=(None, 0))(m, h * XS).sum()


@OWN("shard_map on 2 devices")
def shard_map(m, h):
    whole, split = PartitionSpec(), PartitionSpec("d")

    @nnx.shard_map(mesh=mesh(), in_specs=(whole, split), out_specs=split)
    def run(m, v):
        return v * m(lax.pmean(v.mean(), "d"))

    return run(m, h + XS).mean()


@OWN("eval_shape")
def eval_shape(m, h):
    assert nnx.eval_shape(call, m, h).shape == ()
    return 2 * h


COLUMNS = {
    "Flax NNX": Column(("flax",), start, argument_and_closure, OWN),
    # Its variables hold JAX's refs: meant for JAX's own transformations.
    "Flax NNX, `ref=True`": Column(
        ("flax",), partial(start, jit=jax.jit, ref=True), argument_and_closure
    ),
}
