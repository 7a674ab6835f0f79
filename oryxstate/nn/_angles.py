"""Angles of sinusoidal and rotary positions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def angles(positions: jax.Array, features: int, base: float, dtype: Any) -> jax.Array:
    """Return `position / base ** (2i / features)` in radians, `[*positions, features / 2]`.

    Angles of integers leave out whole turns, so that they are exact at any position. A product in
    float32 would be off by up to 6e-8 of itself, more than a hundredth of a radian from 200,000 on.

    Args:
        positions: integers, or floats, which are multiplied in `dtype`.
        features: the number of features, even.
        base: the base of the frequencies.
        dtype: of the angles, float32 or wider.
    """
    frequencies = base ** (-np.arange(0, features, 2) / features)
    is_integer = jnp.issubdtype(positions.dtype, jnp.integer)
    if not is_integer or jnp.finfo(dtype).bits > 32:
        return _product(positions, frequencies, dtype)
    if positions.dtype.itemsize > 4:  # 64-bit integers exist where float64 does
        turn = 2 * math.pi
        exact = _product(positions, frequencies, jnp.float64)
        return jnp.remainder(exact, turn).astype(dtype)
    if positions.dtype != jnp.uint32:
        positions = positions.astype(jnp.int32)
    size = jnp.abs(positions).astype(jnp.uint32)
    turned = _turned(size, frequencies).astype(dtype)
    return jnp.where(jnp.expand_dims(positions < 0, -1), -turned, turned)


def _product(positions: jax.Array, frequencies: np.ndarray, dtype: Any) -> jax.Array:
    return jnp.multiply.outer(positions.astype(dtype), jnp.asarray(frequencies, dtype))


def _turned(positions: jax.Array, frequencies: np.ndarray) -> jax.Array:
    """Multiply in fixed point: uint32 arithmetic in units of `2**-32` turns drops whole turns."""
    turns = np.mod(frequencies / (2 * np.pi), 1) * 2**32
    high = np.floor(turns)
    low = np.floor((turns - high) * 2**32)
    product = jnp.multiply.outer(positions, jnp.asarray(high, jnp.uint32))
    product = product + _upper(positions, low)
    return lax.bitcast_convert_type(product, jnp.int32).astype(jnp.float32) * (math.pi / 2**31)


def _upper(positions: jax.Array, factors: np.ndarray) -> jax.Array:
    """Return the upper 32 of the 64 bits of each product, up to a carry of 2."""
    upper, lower = positions >> 16, positions & 0xFFFF
    high, low = (jnp.asarray(half, jnp.uint32) for half in np.divmod(factors, 2**16))
    mixed = (jnp.multiply.outer(upper, low), jnp.multiply.outer(lower, high))
    return jnp.multiply.outer(upper, high) + (mixed[0] >> 16) + (mixed[1] >> 16)
