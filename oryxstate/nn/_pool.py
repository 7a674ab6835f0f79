"""Pooling layers, which reduce the windows of an input."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real

from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._precision import wide
from oryxstate.nn._windows import (
    Lengths,
    Padding,
    Windows,
    axes_of,
    check_windows,
    frozen,
    room_for,
    shape_of,
)


class _Pool(Layer):
    """The base class of pooling over windows along 1 to 3 spatial axes, channels last."""

    window_shape: int | tuple[int, ...] = static(converter=frozen)
    strides: int | tuple[int, ...] | None = static(default=None, converter=frozen)
    padding: Any = static(default="VALID", converter=frozen)

    def __post_init__(self) -> None:
        """Check a layer that is made without a template."""
        self.check(self.window_shape, self.strides, self.padding)

    @classmethod
    def check(
        cls, window_shape: Lengths, strides: Lengths | None = None, padding: Padding = "VALID"
    ) -> None:
        """Check lengths and axes, and that no window consists of padding alone."""
        lengths: Any = {} if strides is None else {"strides": strides}
        lengths = {"window_shape": window_shape, **lengths}
        check_windows(cls.__name__, padding, ("SAME", "VALID"), **lengths)
        if isinstance(padding, str):
            return
        axes = axes_of(window_shape, strides, padding) or 1
        windows = Windows.along(axes, window_shape, 1, padding)
        sizes = zip(windows.reach, windows.pads(()), strict=True)
        if any(max(pads) >= length for length, pads in sizes):
            raise ValueError(
                f"{cls.__name__}: `padding` must be shorter than the window, or some windows hold "
                f"nothing else; got padding {padding!r} of windows {window_shape!r}."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        window_shape: Lengths,
        strides: Lengths | None = None,
        padding: Padding = "VALID",
    ) -> LayerParams:
        """Return the configuration; the layer has no parameters.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example, with 1 to 3 spatial axes.
            window_shape: the length along each spatial axis; an integer applies to all axes, here
                and in `strides` and `padding`.
            strides: the steps from one window to the next; the window length if None.
            padding: "SAME", "VALID", an integer, or a pair (before, after) for each spatial axis.
        """
        info = {"window_shape": window_shape, "strides": strides, "padding": padding}
        made = LayerParams(info=info)
        cls.new(made)._windows(single(cls, in_spec))
        return made

    def _windows(self, x: Any) -> Windows:
        """Return the windows of an input, or of the spec of one.

        Raises:
            InputError: if none fits.
        """
        axes = axes_of(self.window_shape, self.strides, self.padding)
        fits = 2 <= np.ndim(x) <= 4 and axes in (None, np.ndim(x) - 1)
        self.check_input(fits, shape_of(axes), x)
        strides = self.window_shape if self.strides is None else self.strides
        windows = Windows.along(len(x.shape) - 1, self.window_shape, strides, self.padding)
        self.check_input(windows.fit(x.shape[:-1]), room_for(windows), x)
        return windows


def _reduced(x: jax.Array, windows: Windows, first: Any, reduce: Any) -> jax.Array:
    """Reduce each window. JAX has the derivative only if the start is a NumPy scalar."""
    start = np.asarray(first, x.dtype)[()]
    pads = (*windows.pads(x.shape[:-1]), (0, 0))
    return lax.reduce_window(x, start, reduce, (*windows.reach, 1), (*windows.strides, 1), pads)


class MaxPool(_Pool):
    """The maximum of each window over 1 to 3 spatial axes; padding is never the maximum.

    Attributes:
        window_shape: the length along each spatial axis, or one integer for all.
        strides: the steps from one window to the next; the window length if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.MaxPool(2)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([4., 3.], dtype=float32)
    """

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Real[Array, "*places channels"]:
        """Return the maxima. Among equal elements the first gets the gradient."""
        windows, x = self._windows(x), jnp.asarray(x)
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        lowest = -np.inf if floating else jnp.iinfo(x.dtype).min
        return _reduced(x, windows, lowest, lax.max)


class SumPool(_Pool):
    """The sum of each window over 1 to 3 spatial axes; padding counts as zeros.

    Attributes:
        window_shape: the length along each spatial axis, or one integer for all.
        strides: the steps from one window to the next; the window length if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.SumPool(2)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([5., 5.], dtype=float32)
    """

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Real[Array, "*places channels"]:
        """Return the sums, in the dtype of the input."""
        windows, x = self._windows(x), jnp.asarray(x)
        return _reduced(wide(x), windows, 0, lax.add).astype(x.dtype)


class AvgPool(_Pool):
    """The mean of each window over 1 to 3 spatial axes, not counting padding.

    This is PyTorch's `count_include_pad=False`; its default counts padding as zeros.

    Attributes:
        window_shape: the length along each spatial axis, or one integer for all.
        strides: the steps from one window to the next; the window length if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AvgPool(2, padding=1)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([1. , 3.5, 2. ], dtype=float32)
    """

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Float[Array, "*places channels"]:
        """Return the means, for integers in float32."""
        windows, x = self._windows(x), jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
        total = _reduced(wide(x), windows, 0, lax.add)
        return (total / _counts(windows, x.shape[:-1]).astype(total.dtype)).astype(x.dtype)


def _counts(windows: Windows, spatial: tuple[int, ...]) -> np.ndarray:
    """Count the elements of the input in each window, `[*places, 1]`."""
    along = []
    sizes = zip(spatial, windows.pads(spatial), windows.reach, windows.strides, strict=True)
    for n, (low, high), reach, stride in sizes:
        starts = np.arange(0, n + low + high - reach + 1, stride) - low
        along.append(np.minimum(starts + reach, n) - np.maximum(starts, 0))
    return functools.reduce(np.multiply.outer, along)[..., None]
