"""The rows in JAX's own mutable arrays: a layer keeps its state in two `Ref`s."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from layer import Column, arrays, output, updated
from native import argument_and_closure, call, checkpoint, scanned
from rows import Programs


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["scale", "total", "count"],
    meta_fields=["through"],
)
@dataclass
class Layer:
    scale: jax.Array
    total: Any
    count: Any
    through: bool

    def __call__(self, h):
        self.total[...], self.count[...] = updated(
            self.total[...], self.count[...], h, self.through
        )
        return output(self.scale, self.total[...], h)


def start(row, program, jitted, kind=None):
    scale, total, count = arrays(row)
    m = Layer(scale, jax.new_ref(total, kind=kind), jax.new_ref(count, kind=kind), row.through)
    run = jax.jit(program) if jitted else program

    def step(h):
        y = run(m, h)
        return y, m.total[...], m.count[...]

    return step


def start_own(row, program, jitted):
    return start(row, program, jitted, None if row.through else "no_grad_no_remat")


# The state of the refs is data here, and the refs are made so that JAX knows it.
OWN = Programs()
OWN["grad of checkpoint"] = lambda m, h: jax.grad(jax.checkpoint(call), argnums=1)(m, h)


def with_refs(program):
    """The slope with respect to `h`, where the ref is differentiated too."""

    def run(m, h):
        y, pull = jax.vjp(lambda total, h: program(replace(m, total=total), h), m.total, h)
        wanted = jax.new_ref(jnp.zeros_like(y)), jax.ad.GradValue()
        return pull.with_refs(*wanted)(jnp.ones_like(y))[1]

    return run


OWN["grad, through state"] = with_refs(call)
OWN["grad of checkpoint, through state"] = with_refs(partial(checkpoint, call))
OWN["grad of scan, through state"] = with_refs(partial(scanned, 3, call))

COLUMNS = {"JAX `Ref`": Column((), start, argument_and_closure, OWN, start_own, own_word="own way")}
