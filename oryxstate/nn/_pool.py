"""Pooling layers, which reduce the windows of an input."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._pool_windows import counts, largest, numbers, sums
from oryxstate.nn._precision import wide, with_floats
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
    dilation: int | tuple[int, ...] = static(default=1, converter=frozen)

    _ordered: ClassVar[bool] = False  # whether numbers are compared

    def _check_fields(self) -> None:
        self.check(self.window_shape, self.strides, self.padding, dilation=self.dilation)

    @classmethod
    def check(
        cls,
        window_shape: Lengths,
        strides: Lengths | None = None,
        padding: Padding = "VALID",
        *,
        dilation: Lengths = 1,
    ) -> None:
        """Check lengths and axes, and that no window consists of padding alone."""
        lengths: Any = {} if strides is None else {"strides": strides}
        lengths = {"window_shape": window_shape, **lengths, "dilation": dilation}
        check_windows(cls.__name__, padding, ("SAME", "VALID"), **lengths)
        if isinstance(padding, str):
            return
        axes = axes_of(window_shape, strides, padding, dilation) or 1
        windows = Windows.along(axes, window_shape, 1, padding, dilation)
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
        *,
        dilation: Lengths = 1,
    ) -> LayerParams:
        """Return the configuration; the layer has no parameters.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example, with 1 to 3 spatial axes.
            window_shape: the length along each spatial axis; an integer applies to all axes, here
                and in `strides`, `padding` and `dilation`.
            strides: the steps from one window to the next; the window length if None.
            padding: "SAME", "VALID", an integer, or a pair (before, after) for each spatial axis.
            dilation: the steps from one element of a window to the next.
        """
        info = {"window_shape": window_shape, "strides": strides, "padding": padding}
        made = LayerParams(info={**info, "dilation": dilation})
        cls.new(made)._windows(single(cls, in_spec))
        return made

    def _windows(self, x: Any) -> Windows:
        """Return the windows of an input, or of the spec of one.

        Raises:
            InputError: if none fits.
        """
        self.check_input(*numbers(x, ordered=self._ordered), x)
        axes = axes_of(self.window_shape, self.strides, self.padding, self.dilation)
        fits = 2 <= np.ndim(x) <= 4 and axes in (None, np.ndim(x) - 1)
        self.check_input(fits, shape_of(axes), x)
        strides = self.window_shape if self.strides is None else self.strides
        axes = len(x.shape) - 1
        windows = Windows.along(axes, self.window_shape, strides, self.padding, self.dilation)
        self.check_input(windows.fit(x.shape[:-1]), room_for(windows), x)
        some = counts(windows, x.shape[:-1]).min() > 0
        self.check_input(some, f"{room_for(windows)}, none of them in padding alone", x)
        return windows


class MaxPool(_Pool):
    """The maximum of each window over 1 to 3 spatial axes; padding is never the maximum.

    Attributes:
        window_shape: the length along each spatial axis, or one integer for all.
        strides: the steps from one window to the next; the window length if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.
        dilation: the steps from one element of a window to the next.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.MaxPool(2)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([4., 3.], dtype=float32)
    """

    _ordered = True

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Real[Array, "*places channels"]:
        """Return the maxima. Among equal elements the first gets the gradient."""
        windows, x = self._windows(x), jnp.asarray(x)
        return largest(windows, x)


class SumPool(_Pool):
    """The sum of each window over 1 to 3 spatial axes; padding counts as zeros.

    Attributes:
        window_shape: the length along each spatial axis, or one integer for all.
        strides: the steps from one window to the next; the window length if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.
        dilation: the steps from one element of a window to the next.

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
        return sums(windows, wide(x)).astype(x.dtype)


class AvgPool(_Pool):
    """The mean of each window over 1 to 3 spatial axes, not counting padding.

    This is PyTorch's `count_include_pad=False`; its default counts padding as zeros.

    Attributes:
        window_shape: the length along each spatial axis, or one integer for all.
        strides: the steps from one window to the next; the window length if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.
        dilation: the steps from one element of a window to the next.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AvgPool(2, padding=1)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([1. , 3.5, 2. ], dtype=float32)
    """

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Float[Array, "*places channels"]:
        """Return the means, for integers in float32, for 64-bit integers in float64."""
        windows, x = self._windows(x), with_floats(jnp.asarray(x))
        total = sums(windows, wide(x))
        return (total / counts(windows, x.shape[:-1]).astype(total.dtype)).astype(x.dtype)
