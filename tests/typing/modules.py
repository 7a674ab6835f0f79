# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnknownMemberType=false
"""What pyright knows of users' modules: right lines pass, wrong ones are refused by that rule."""

from collections.abc import Callable
from typing import assert_type

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import oryxstate as ox


def as_array(value: float | jax.Array) -> jax.Array:
    return jnp.asarray(value)


class Dense(ox.Module):
    kernel: Float[Array, "i o"] = ox.param()
    scale: jax.Array = ox.param(converter=as_array, default=1.0)
    count: jax.Array = ox.state(default_factory=lambda: jnp.array(0), kw_only=True)
    activation: Callable[[jax.Array], jax.Array] = ox.static(default=jax.nn.relu)

    def call(self, x: jax.Array) -> jax.Array:
        self.assign(count=self.count + 1)
        return self.activation(x @ self.kernel * self.scale)


class Deep(ox.Module):
    layers: list[Dense]


kernel = jnp.ones((2, 2))
dense = Dense(kernel, 2.0, count=jnp.array(1), name="first")
assert_type(dense, Dense)
assert_type(dense.scale, jax.Array)
assert_type(dense.name, str | None)
assert_type(dense.call(kernel), jax.Array)
assert_type(dense.update(kernel), Dense)
assert_type(dense.replace(scale=3.0), Dense)
assert_type(Deep([dense]).layers, list[Dense])

Dense()  # pyright: ignore[reportCallIssue]
Dense(kernel, kernal=kernel)  # pyright: ignore[reportCallIssue]
Dense(kernel, 2.0, jnp.array(1))  # pyright: ignore[reportArgumentType]
Dense(kernel, "big")  # pyright: ignore[reportArgumentType]
dense.scale = kernel  # pyright: ignore[reportAttributeAccessIssue]
print(dense.kernal)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]


class Options(ox.Module, kw_only=True):
    scale: jax.Array = ox.param(default_factory=lambda: jnp.array(1.0))
    size: int = ox.static()

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale


assert_type(Options(size=3)(kernel), jax.Array)

Options(kernel, 3)  # pyright: ignore[reportCallIssue]
