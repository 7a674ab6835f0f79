"""In which dtype does a layer compute, and what is asked of its configuration?"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Initializer(Protocol):
    """What draws a parameter, as in `jax.nn.initializers`."""

    def __call__(self, key: Any, shape: Any, dtype: Any, /) -> jax.Array:
        """An array of this shape and dtype."""
        ...


def computing(dtype: Any, *values: Any) -> tuple[Any, ...]:
    """Values in `dtype`, or in the dtype that they promote to; None stays None."""
    arrays = [v for v in values if v is not None]
    common = jnp.result_type(*(v.dtype for v in arrays)) if dtype is None else dtype
    return tuple(None if v is None else jnp.asarray(v, common) for v in values)


def wide(x: jax.Array) -> jax.Array:
    """Floating point numbers of 16 bits or less in float32: long sums lose less, and fit."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if narrow else x


def last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector for the last axis of `x`, with the rank of `x`: ranks are not promoted silently."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - vector.ndim)))


def positive(layer: str, what: str, *values: int) -> None:
    """Raise unless all are positive integers.

    Raises:
        ValueError: naming the layer and the value.
    """
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{layer}: `{what}` must be a positive integer, got {value!r}.")


def fraction(layer: str, what: str, value: float) -> None:
    """Raise unless a probability is in [0, 1).

    Raises:
        ValueError: naming the layer and the value.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{layer}: `{what}` must be in [0, 1), got {value!r}.")
