"""The modules that generated programs call, one of each kind that users write."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from programs import keys, oracle_cells
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
        if kind.startswith("explicit"):
            y, new = self.threaded(kind, x)
            self.assign(s=new.s, n=new.n)
            return y
        y, s = oracle_cells.step(kind, self.s, x, jnp.sin)
        if kind != "read":
            self.assign(s=s, n=_count(self.n, x))
        # What was written is what is read.
        return y + 0.0 * (self.s - lax.stop_gradient(self.s)) if kind == "count" else y

    def threaded(self, kind, x):
        """One root call, or two in a row."""

        def step(carry):
            return carry[1].call_and_update("accumulate", carry[0])

        if kind == "explicit scan":
            carry = x, ox.snapshot(self)
            return lax.scan(lambda carry, _: (step(carry), None), carry, None, length=2)[0]
        if kind == "explicit fori":
            return lax.fori_loop(0, 2, lambda _, carry: step(carry), (x, ox.snapshot(self)))
        carry = step((x, self))
        return step(carry) if kind == "explicit loop" else carry


class RuleCell(ox.Module):
    """The same as an author writes it who returns the new module."""

    s: jax.Array = ox.state()
    n: jax.Array = ox.state()

    def call_and_update(self, kind, x):
        if kind == "twice":
            x, new = self.stepped("count", x)
            return new.stepped("accumulate", x)
        new = self
        for _ in range(oracle_cells.REPEATED.get(kind, 0)):
            x, new = new.stepped("accumulate", x)
        return (x, new) if kind in oracle_cells.REPEATED else self.stepped(kind, x)

    def stepped(self, kind, x):
        y, s = oracle_cells.step(kind, self.s, x, jnp.sin)
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


def of(state: dict) -> tuple:
    """The fields of `ours.Parts` in a state of the oracle's."""
    f = jnp.float32
    cells = [(f(s), jnp.int32(n)) for s, n in state["cells"]]
    first, second = zip(*state["pairs"], strict=True)
    a, b0, b1 = state["tree"]
    seed, count = state["key"]
    assert count == 0
    return (
        (Cell(*cells[0]), RuleCell(*cells[1]), Cell(*cells[2])),
        {"cells": [Cell(*cells[3])]},
        Holder(Cell(*cells[4])),
        Cell(*_stacked(state["ensemble"])),
        Cell(*_stacked(state["stack"])),
        {"pair": (Cell(*_stacked(first)), RuleCell(*_stacked(second)))},
        Tree({"a": f(a), "b": jnp.array([b0, b1], f)}),
        Key(jax.random.key(seed)),
        Reduced(f(state["reduced"])),
        f(state["weight"]),
    )


def _stacked(cells):
    s, n = zip(*cells, strict=True)
    return jnp.array(s, jnp.float32), jnp.array(n, jnp.int32)
