"""The rows in oryxstate: in JAX's own transformations, and nothing is threaded."""

from __future__ import annotations

from typing import Any

import jax
from layer import Column, arrays, output, updated
from native import argument_and_closure

import oryxstate as ox


class Layer(ox.Module):
    scale: jax.Array = ox.param()
    total: jax.Array = ox.state()
    count: jax.Array = ox.state()
    through: bool = ox.static()

    def call(self, h):
        total, count = updated(self.total, self.count, h, self.through)
        self.assign(total=total, count=count)
        return output(self.scale, self.total, h)


class Host(ox.Module):
    layer: Layer
    program: Any = ox.static()

    def call(self, h):
        return self.program(self.layer, h)


def start(row, program, jitted):
    model = Host(Layer(*arrays(row), row.through), program)
    run = jax.jit(ox.call_and_update) if jitted else ox.call_and_update

    def step(h):
        nonlocal model
        y, model = run(model, h)
        return y, model.layer.total, model.layer.count

    return step


COLUMNS = {"oryxstate": Column((), start, argument_and_closure)}
