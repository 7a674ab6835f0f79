"""The rows in Haiku: in JAX's transformations, and in its own of the same names."""

from __future__ import annotations

from functools import partial

import haiku as hk
import jax
import jax.numpy as jnp
from layer import Column, arrays, output, updated
from native import closure
from rows import XS, Programs


class Layer(hk.Module):
    def __init__(self, through):
        super().__init__("layer")
        self.through = through

    def __call__(self, h):
        scale = hk.get_parameter("scale", (), init=jnp.ones)
        total = hk.get_state("total", (), init=jnp.zeros)
        count = hk.get_state("count", (), jnp.int32, init=jnp.zeros)
        total, count = updated(total, count, h, self.through)
        hk.set_state("total", total)
        hk.set_state("count", count)
        return output(scale, hk.get_state("total"), h)


def start(row, program, jitted):
    model = hk.transform_with_state(lambda h: program(Layer(row.through), h))
    scale, total, count = arrays(row)
    params, state = {"layer": {"scale": scale}}, {"layer": {"total": total, "count": count}}
    run = jax.jit(model.apply) if jitted else model.apply

    def step(h):
        nonlocal state
        y, state = run(params, state, None, h)
        return y, state["layer"]["total"], state["layer"]["count"]

    return step


OWN = Programs()
OWN["fori_loop"] = lambda m, h: hk.fori_loop(0, 3, lambda _, h: m(h), h)
OWN["cond"] = lambda m, h: hk.cond(h > 0, m, lambda h: 2 * h, h)
OWN["switch"] = lambda m, h: hk.switch((h > 0).astype(int), [m, lambda h: m(m(h))], h)
OWN["checkpoint"] = lambda m, h: hk.remat(m)(h)


@OWN("scan")
def scan(m, h):
    def body(h, x):
        h = m(h + x)
        return h, x * h

    h, ys = hk.scan(body, h, XS)
    return h + ys.sum()


def scanned(count, m, h):
    return hk.scan(lambda h, _: (m(h), None), h, None, length=count)[0]


OWN["scan, no iteration"] = partial(scanned, 0)


@OWN("while_loop")
def while_loop(m, h):
    return hk.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, m(c[1])), (0, h))[1]


@OWN("while_loop, a write in the predicate")
def predicate(m, h):
    return hk.while_loop(lambda h: (m(h) < 9) & (h < 2), lambda h: h + 1, h)


@OWN("grad", "grad, through state")
def grad(m, h):
    return hk.grad(m)(h)


@OWN("grad of checkpoint", "grad of checkpoint, through state")
def grad_of_checkpoint(m, h):
    return hk.grad(hk.remat(m))(h)


@OWN("grad of scan", "grad of scan, through state")
def grad_of_scan(m, h):
    return hk.grad(partial(scanned, 3, m))(h)


@OWN("value_and_grad with aux")
def value_and_grad(m, h):
    def loss(h):
        y = m(h)
        return y, 2 * y

    (y, aux), slope = hk.value_and_grad(loss, has_aux=True)(h)
    return y + aux + slope


@OWN("vmap, the same write for all")
def vmap_alike(m, h):
    return hk.vmap(lambda x: x * m(h), split_rng=False)(XS).sum()


@OWN("vmap, a write for each example, to be refused")
def vmap_each(m, h):
    return hk.vmap(m, split_rng=False)(h * XS).sum()


@OWN("vmap over an ensemble")
def ensemble(m, h):
    """As the documentation of `hk.vmap` advises where parameters are mapped."""
    member = hk.transform_with_state(lambda h: Layer(m.through)(h))
    lifted, updater = hk.transparent_lift_with_state(member.init, allow_reuse=True)
    params, state = lifted(None, h)
    y, state = jax.vmap(member.apply, (0, 0, None, None))(params, state, None, h)
    updater.update(state)
    return y.sum()


@OWN("eval_shape")
def eval_shape(m, h):
    assert hk.eval_shape(m, h).shape == ()
    return 2 * h


COLUMNS = {"Haiku": Column(("dm-haiku",), start, closure, OWN)}
