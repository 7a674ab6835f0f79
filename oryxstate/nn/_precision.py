"""Dtypes of computation, and checks of configuration values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oryxstate.nn import _placed


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Trace, differentiate and map a formula once for all layers of the same shapes.

    Its keywords are static. The operations are inlined into the compiled program.
    """
    keywords = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY
    ]
    return jax.jit(function, inline=True, static_argnames=keywords)


def computing(dtype: Any, *values: Any) -> tuple[Any, ...]:
    """Convert values to `dtype`, or to the dtype that they promote to; None stays None."""
    common = common_dtype(dtype, *values)
    return tuple(None if v is None else jnp.asarray(v, common) for v in values)


def common_dtype(dtype: Any, *values: Any) -> Any:
    """Return `dtype`, or the dtype that the values promote to, ignoring None."""
    if dtype is not None:
        return dtype
    return jnp.result_type(*(getattr(v, "dtype", v) for v in values if v is not None))


def wide(x: jax.Array) -> jax.Array:
    """Convert floats of 16 bits or less to float32, in which long sums are safe."""
    dtype = wide_dtype(x.dtype)
    return x if dtype == x.dtype else x.astype(dtype)


def wide_dtype(dtype: Any) -> Any:
    """Return float32 for floats of 16 bits or less, and other dtypes as they are."""
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.float32 if narrow else dtype


def blended(old: jax.Array, new: jax.Array, keep: float) -> jax.Array:
    """Return `keep * old + (1 - keep) * new`, exactly `old` where both are equal.

    Summed from the nearer end, as in PyTorch's `lerp`: a rounded `keep + (1 - keep)` that is not 1
    would bias an average over many steps.
    """
    keep = float(keep)
    return old + (1 - keep) * (new - old) if keep >= 0.5 else new + keep * (old - new)


def with_floats(x: jax.Array) -> jax.Array:
    """Convert integers to float32, in which their mean is computed; 64-bit ones to float64."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return x.astype(jnp.float64 if x.dtype.itemsize == 8 else jnp.float32)


def last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Expand a vector along the last axis to the rank of `x`; rank promotion may be off."""
    vector = _placed.along(vector, x, tuple(range(-vector.ndim, 0)))
    return lax.expand_dims(vector, range(x.ndim - vector.ndim))


def positive(layer: str, what: str, *values: int) -> None:
    """Raise unless all are positive integers.

    Raises:
        ValueError: naming the layer and the value.
    """
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{layer}: `{what}` must be a positive integer, got {value!r}.")


def check_names(layer: str, axes: Any, count: int | None = None) -> None:
    """Raise unless `axes` is a tuple of names, None for an axis without one.

    Raises:
        ValueError: naming the layer and the value.
    """
    names = axes if isinstance(axes, tuple) else (axes,)
    fits = isinstance(axes, tuple) and all(n is None or isinstance(n, str) for n in names)
    if not fits or count not in (None, len(names)):
        many = "one name or None for each axis" if count is None else f"{count} names or None"
        raise ValueError(
            f'{layer}: `axes` is a tuple of {many}, such as ("embed", "mlp"), got {axes!r}.'
        )


def above_zero(layer: str, what: str, value: float) -> None:
    """Raise unless a number is positive and finite.

    Raises:
        ValueError: naming the layer and the value.
    """
    if not isinstance(value, float | int | np.number) or not 0 < value < float("inf"):
        raise ValueError(f"{layer}: `{what}` must be a positive number, got {value!r}.")


def not_negative(layer: str, what: str, value: float) -> None:
    """Raise for a negative number, or NaN.

    Raises:
        ValueError: naming the layer and the value.
    """
    if not isinstance(value, float | int | np.number) or not value >= 0:
        raise ValueError(f"{layer}: `{what}` must not be negative, got {value!r}.")


def fraction(layer: str, what: str, value: float) -> None:
    """Raise unless a probability is in [0, 1).

    Raises:
        ValueError: naming the layer and the value.
    """
    if not isinstance(value, float | int | np.number) or not 0 <= value < 1:
        raise ValueError(f"{layer}: `{what}` must be in [0, 1), got {value!r}.")
