"""The overhead of a root call whose operations run one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from _measure import interleaved, report

import oryxstate as ox

OPERATIONS = 50


def _operations(count, x):
    for _ in range(OPERATIONS):
        x = jnp.tanh(x) * 1.01
    return x, count + 1


class Operations(ox.Module):
    """The same inside a root call."""

    count: jax.Array = ox.state()

    def call(self, x):
        x, count = _operations(self.count, x)
        self.assign(count=count)
        return x


def run(size: int, rounds: int) -> None:
    """`tanh` and a product, fifty times, on `size` by `size` matrices, and a counter."""
    x, count = jnp.ones((size, size)), jnp.array(0)
    model = Operations(count)
    runs = {
        "alone": lambda: jax.block_until_ready(_operations(count, x)),
        "in a root call": lambda: jax.block_until_ready(model.call_and_update(x)),
    }
    title = f"eager: {2 * OPERATIONS + 1} operations on {size} x {size}"
    report(title, interleaved(runs, rounds), "alone")


def run_all(rounds: int) -> None:
    """Small arrays and large ones."""
    for size in 4, 512:
        run(size, rounds)
