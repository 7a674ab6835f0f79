"""The rows in Flax Linen: in JAX's transformations, and in its lifted ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from layer import Column, arrays, output, updated
from native import call, closure
from rows import XS, Programs


class Layer(nn.Module):
    through: bool

    @nn.compact
    def __call__(self, h):
        scale = self.param("scale", nn.initializers.ones, ())
        total = self.variable("state", "total", jnp.zeros, ())
        count = self.variable("state", "count", jnp.zeros, (), jnp.int32)
        total.value, count.value = updated(total.value, count.value, h, self.through)
        return output(scale, total.value, h)


class Host(nn.Module):
    through: bool
    program: Any

    def setup(self):
        self.layer = Layer(self.through)

    def __call__(self, h):
        return self.program(self.layer, h)


def start(row, program, jitted):
    model = Host(row.through, program)
    scale, total, count = arrays(row)
    params = {"layer": {"scale": scale}}
    state = {"layer": {"total": total, "count": count}}

    def run(state, h):
        return model.apply({"params": params, "state": state}, h, mutable=["state"])

    run = jax.jit(run) if jitted else run

    def step(h):
        nonlocal state
        y, new = run(state, h)
        state = new["state"]
        return y, state["layer"]["total"], state["layer"]["count"]

    return step


OWN = Programs()
OWN["jit"] = lambda m, h: nn.jit(call)(m, h)
OWN["cond"] = lambda m, h: nn.cond(h > 0, call, lambda m, h: 2 * h, m, h)
OWN["checkpoint"] = lambda m, h: nn.remat(call)(m, h)


@OWN("jit, called twice")
def jit_twice(m, h):
    jitted = nn.jit(call)
    return jitted(m, jitted(m, h))


carried = partial(nn.scan, variable_broadcast="params", variable_carry="state")


@OWN("scan")
def scan(m, h):
    def body(m, h, x):
        h = m(h + x)
        return h, x * h

    h, ys = carried(body)(m, h, XS)
    return h + ys.sum()


def scanned(count, m, h):
    return carried(lambda m, h, _: (m(h), None), length=count)(m, h, None)[0]


OWN["scan, no iteration"] = partial(scanned, 0)


@OWN("while_loop")
def while_loop(m, h):
    def body(m, carry):
        i, h = carry
        return i + 1, m(h)

    return nn.while_loop(lambda m, c: c[0] < 3, body, m, (0, h), carry_variables="state")[1]


@OWN("while_loop, a write in the predicate")
def predicate(m, h):
    def more(m, h):
        return (m(h) < 9) & (h < 2)

    return nn.while_loop(more, lambda m, h: h + 1, m, h, carry_variables="state")


@OWN("switch")
def switch(m, h):
    return nn.switch((h > 0).astype(int), [call, lambda m, h: m(m(h))], m, h)


@OWN("grad", "grad, through state")
def grad(m, h):
    return nn.grad(call, m, h)[0]


@OWN("grad of checkpoint", "grad of checkpoint, through state")
def grad_of_checkpoint(m, h):
    return nn.grad(nn.remat(call), m, h)[0]


@OWN("grad of scan", "grad of scan, through state")
def grad_of_scan(m, h):
    return nn.grad(partial(scanned, 3), m, h)[0]


@OWN("value_and_grad with aux")
def value_and_grad(m, h):
    def loss(m, h):
        y = m(h)
        return y, 2 * y

    (y, aux), (slope,) = nn.value_and_grad(loss, m, h, has_aux=True)
    return y + aux + slope


@OWN("jvp")
def jvp(m, h):
    return sum(nn.jvp(call, m, (h,), (jnp.ones_like(h),), variable_tangents={}))


@OWN("vjp")
def vjp(m, h):
    y, pull = nn.vjp(call, m, h)
    return y + pull(jnp.ones_like(y))[1]


@OWN("custom_vjp")
def custom_vjp(m, h):
    def backward(params, bar):
        return {"params": jax.tree.map(jnp.zeros_like, params)}, 3 * bar

    run = nn.custom_vjp(call, lambda m, h: (m(h), m.variables["params"]), backward)
    y, (slope,) = nn.value_and_grad(run, m, h)
    return y + slope


def vmapped(f, axis=None, **options):
    return nn.vmap(f, variable_axes={"params": axis, "state": axis}, **options)


@OWN("vmap, the same write for all")
def vmap_alike(m, h):
    return vmapped(lambda m, x: x * m(h))(m, XS).sum()


@OWN("vmap, a write for each example, to be refused")
def vmap_each(m, h):
    return vmapped(call)(m, h * XS).sum()


@OWN("vmap over an ensemble")
def ensemble(m, h):
    return vmapped(call, 0, in_axes=None, axis_size=2)(m, h).sum()


COLUMNS = {"Flax Linen": Column(("flax",), start, closure, OWN)}
