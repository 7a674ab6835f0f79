"""A module that counts its calls in a state `n`, and how a root call of it is compared."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from hosts import Host, both, close
from jaxtyping import Array

import oryxstate as ox

X = jnp.float32(0.5)


class Gain(ox.Module):
    w: Array = ox.param()
    n: Array = ox.state()

    def call(self, x):
        self.assign(n=self.n + 1)
        return self.w * x + self.n


def gain(n: float, w: float = 2.0) -> Gain:
    return Gain(jnp.float32(w), jnp.float32(n))


def after(module: Any, program: Any) -> tuple[Any, Any]:
    """The output and the count that a root call leaves, the same eagerly and jitted, twice."""
    found = [run(Host(module, program), X) for run in both(ox.call_and_update) for _ in range(2)]
    for other in found[1:]:
        close(other, found[0])
    return found[0][0], found[0][1].inner.n
