"""Reductions over the windows of an input, and the check of what pools take."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oryxstate.nn._windows import Windows


def sums(windows: Windows, x: jax.Array) -> jax.Array:
    """Return the sum of each window, channels last."""
    start = np.zeros((), x.dtype)[()]  # JAX has the derivative only for a NumPy scalar
    window, strides, pads = _with_channels(windows, x)
    dilation = (*windows.dilation, 1)
    return lax.reduce_window(x, start, lax.add, window, strides, pads, None, dilation)


def largest(windows: Windows, x: jax.Array) -> jax.Array:
    """Return the maximum of each window; the first of equal elements has the derivative."""
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = np.asarray(-np.inf if floating else jnp.iinfo(x.dtype).min, x.dtype)[()]
    window, strides, pads = _with_channels(windows, x)
    if set(windows.dilation) == {1}:
        return lax.reduce_window(x, lowest, lax.max, window, strides, pads)
    # JAX cannot transpose maxima of dilated windows. Compare one slice for each element of them.
    x = lax.pad(x, lowest, [(*ends, 0) for ends in pads])
    steps, reach = (*windows.dilation, 1), (*windows.reach, 1)

    def element(offset: tuple[int, ...]) -> jax.Array:
        starts = [i * step for i, step in zip(offset, steps, strict=True)]
        ends = [n - r + start + 1 for n, r, start in zip(x.shape, reach, starts, strict=True)]
        return lax.slice(x, starts, ends, strides)

    return functools.reduce(_larger, map(element, itertools.product(*map(range, window))))


def _larger(one: jax.Array, other: jax.Array) -> jax.Array:
    """Return the larger elements, the first of equal ones, and NaN where there is one."""
    return jnp.where((other > one) | (other != other), other, one)


def _with_channels(windows: Windows, x: jax.Array) -> tuple[Any, Any, Any]:
    """Return lengths, strides and pads of windows that hold one channel each."""
    pads = (*windows.pads(x.shape[:-1]), (0, 0))
    return (*windows.lengths, 1), (*windows.strides, 1), pads


def counts(windows: Windows, spatial: tuple[int, ...]) -> np.ndarray:
    """Count the elements of the input in each window, `[*places, 1]`."""
    along = []
    for axis, (low, high) in enumerate(windows.pads(spatial)):
        n, reach = spatial[axis], windows.reach[axis]
        starts = np.arange(0, n + low + high - reach + 1, windows.strides[axis]) - low
        at = np.add.outer(starts, np.arange(0, reach, windows.dilation[axis]))
        along.append(((at >= 0) & (at < n)).sum(1))
    return functools.reduce(np.multiply.outer, along)[..., None]


def numbers(x: Any, *, ordered: bool = False) -> tuple[bool, str]:
    """Return whether pools take an array of this dtype, and what they take in words.

    Args:
        x: an array or its spec.
        ordered: whether the numbers are compared, so that they are real.
    """
    dtype = jnp.result_type(x)
    kind = jnp.issubdtype(dtype, jnp.number)
    fits = kind and not (ordered and jnp.issubdtype(dtype, jnp.complexfloating))
    text = "real numbers" if ordered else "numbers"
    return bool(fits), f"{text} (a mask as `mask.astype(jnp.float32)`)"
