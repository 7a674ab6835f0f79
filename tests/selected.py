"""A model to select in: params, state, static fields, lists, dictionaries, a table of integers."""

import jax
import jax.numpy as jnp

import oryxstate as ox


class Norm(ox.Module):
    scale: jax.Array = ox.param()
    mean: jax.Array = ox.state()
    momentum: float = ox.static(default=0.9)

    def call(self, x):
        self.assign(mean=self.mean + 1)
        return self.scale * x


class Net(ox.Module):
    encoder: list
    head: dict
    table: jax.Array = ox.param()

    def call(self, x):
        return x


def net():
    def norm(n):
        return Norm(jnp.full(2, float(n)), jnp.full((), float(n)))

    head = {"kernel": jnp.ones((2, 2)), "a b": norm(3)}
    return Net([norm(0), norm(1), {"norm": norm(2)}], head, jnp.array([0, 1]))
