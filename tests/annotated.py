"""Annotated modules, and what is said of values that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, Int

import oryxstate as ox


class Scale(ox.Module):
    scale: Float[Array, " c"] = ox.param()
    shift: Float[Array, " c"] | None = ox.param(default=None)
    count: Int[Array, ""] = ox.state(default_factory=lambda: jnp.array(0))
    power: float = ox.static(default=1)

    def call(self, x: Float[Array, "b c"], times: int = 1) -> Float[Array, "b c"]:
        self.assign(count=self.count + 1)
        return times * x * self.scale[None]


class Net(ox.Module):
    layers: list[Scale]

    def call(self, x: Float[Array, "b d"]) -> Float[Array, " d"]:
        for layer in self.layers:
            x = layer(x)
        return x.sum(0)


def net(*sizes: int) -> Net:
    return Net([Scale(jnp.ones(n)) for n in sizes])


def raised(run: Callable[[], Any]) -> str:
    """The text with which `run()` is refused; the library works afterwards."""
    with pytest.raises(ox.AnnotationError) as caught:
        run()
    assert not [note for note in getattr(caught.value, "__notes__", ()) if "axis" in note]
    assert Scale(jnp.ones(1))(jnp.ones((1, 1))).shape == (1, 1)
    return str(caught.value)


def text(what: str, hint: str, got: str, sizes: str = "") -> str:
    """The whole text of the error."""
    known = f", with {sizes}" if sizes else ""
    fix = "Give a value that fits, or mend the annotation."
    return f"{what} is annotated {hint}, but got {got}{known}. {fix}"
