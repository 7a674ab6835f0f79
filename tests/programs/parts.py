"""The modules that generated programs call, one of each kind that users write."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from programs import keys, oracle
from programs.grammar import POSITIVE

import oryxstate as ox


def _count(n: jax.Array, x: jax.Array) -> jax.Array:
    return n + jnp.where(x > POSITIVE, 2, 1)


class Cell(ox.Module):
    """A float that is read and written in several ways, and a counter that depends on inputs."""

    s: jax.Array = ox.state()
    n: jax.Array = ox.state()

    def call(self, kind, x):
        if kind in ("twice", "recur"):
            return self("accumulate", self("count" if kind == "twice" else "accumulate", x))
        if kind == "explicit":
            y, new = self.call_and_update("accumulate", x)
            self.assign(s=new.s, n=new.n)
            return y
        y, s = oracle.step(kind, self.s, x, jnp.sin)
        if kind != "read":
            self.assign(s=s, n=_count(self.n, x))
        # What was written is what is read.
        return y + 0.0 * (self.s - jax.lax.stop_gradient(self.s)) if kind == "count" else y


class RuleCell(ox.Module):
    """The same as an author writes it who returns the new module."""

    s: jax.Array = ox.state()
    n: jax.Array = ox.state()

    def call_and_update(self, kind, x):
        if kind in ("twice", "recur"):
            x, new = self.stepped("count" if kind == "twice" else "accumulate", x)
            return new.stepped("accumulate", x)
        return self.stepped(kind, x)

    def stepped(self, kind, x):
        s = self.s
        if kind == "explicit":
            s, kind = jax.lax.stop_gradient(s), "accumulate"
        y, s = oracle.step(kind, s, x, jnp.sin)
        return y, self if kind == "read" else self.replace(s=s, n=_count(self.n, x))


class Holder(eqx.Module):
    """An Equinox module that holds one of ours."""

    cell: Cell

    def __call__(self, kind, x):
        return self.cell(kind, x)


class Tree(ox.Module):
    """A state that is a pytree."""

    tree: Any = ox.state()

    def call(self, x, write):
        a, (b0, b1) = self.tree["a"], self.tree["b"]
        if write:
            self.assign(tree={"a": 0.5 * a + b0, "b": jnp.stack([b1, jnp.sin(x)])})
        return x + 0.1 * a + 0.2 * b0


class Key(ox.Module):
    """A random key as state."""

    key: jax.Array = ox.state()

    def call(self, x):
        key, number = keys.split(self.key)
        self.assign(key=key)
        return x + 0.1 * number


class Reduced(ox.Module):
    """A state that is the mean over the examples of a `vmap`."""

    s: jax.Array = ox.state(reduce=jnp.mean)

    def call(self, x):
        self.assign(s=0.5 * self.s + x)
        return 0.5 * x + 0.1 * self.s
