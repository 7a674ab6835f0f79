"""What does a root call add to operations that run one by one?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from _measure import interleaved, report

import oryxstate as ox

OPERATIONS = 50


def _operations(x):
    for _ in range(OPERATIONS):
        x = jnp.tanh(x) * 1.01
    return x


class Operations(ox.Module):
    """The same inside a root call."""

    count: jax.Array = ox.state()

    def call(self, x):
        self.assign(count=self.count + 1)
        return _operations(x)


def run(size: int, rounds: int) -> None:
    """`tanh` and a product, fifty times, on `size` by `size` matrices."""
    x, model = jnp.ones((size, size)), Operations(jnp.array(0))
    runs = {
        "alone": lambda: _operations(x).block_until_ready(),
        "in a root call": lambda: model.call_and_update(x)[0].block_until_ready(),
    }
    report(
        f"eager: {2 * OPERATIONS} operations on {size} x {size}", interleaved(runs, rounds), "alone"
    )
