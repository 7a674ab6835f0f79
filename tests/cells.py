"""Small modules with one float param `w` and one float state `h`, whose call is `step` by hand."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

import oryxstate as ox

W, H, X = jnp.float32(0.7), jnp.float32(0.4), jnp.float32(0.3)


class Cell(ox.Module):
    w: Array = ox.param()
    h: Array = ox.state()

    def call(self, x):
        self.assign(h=jnp.tanh(self.w * self.h + x))
        return self.w * self.h


class Rule(ox.Module):
    """The same with an update that its author wrote."""

    w: Array = ox.param()
    h: Array = ox.state()

    def call_and_update(self, x):
        h = jnp.tanh(self.w * self.h + x)
        return self.w * h, self.replace(h=h)


class Outer(ox.Module):
    """Calls its cell implicitly."""

    cell: Any

    def call(self, x):
        return self.cell(x)


class Explicit(ox.Module):
    """Calls its cell as a root call, and assigns the update back."""

    cell: Any

    def call(self, x):
        y, new = self.cell.call_and_update(x)
        self.cell.assign(h=new.h)
        return y


class Copying(ox.Module):
    """Keeps a state of its own, which a cell made for the call starts from."""

    w: Array = ox.param()
    h: Array = ox.state()

    def call(self, x):
        y, cell = Cell(self.w, self.h).call_and_update(x)
        self.assign(h=cell.h)
        return y


class Foreign(eqx.Module):
    cell: Any

    def __call__(self, x):
        return self.cell(x)


def declared(x):
    w, h = ox.variable(W, name="w"), ox.variable(H, name="h")
    return w * ox.assign(jnp.tanh(w * h + x), name="h")


def function(w, h):
    return ox.init(declared)(jax.random.key(0), X).replace(w=w, h=h)


def step(w, h, x):
    h = jnp.tanh(w * h + x)
    return w * h, h
