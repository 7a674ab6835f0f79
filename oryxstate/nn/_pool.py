"""Which layers reduce the spatial axes, window by window or as a whole?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._precision import positive
from oryxstate.nn._windows import (
    Lengths,
    Padding,
    Windows,
    axes_of,
    check_windows,
    frozen,
    room_for,
    shape_of,
    spread,
)


class _Pool(Layer):
    """Windows over 1 to 3 spatial axes of one example, channels last."""

    window_shape: int | tuple[int, ...] = static(converter=frozen)
    strides: int | tuple[int, ...] | None = static(default=None, converter=frozen)
    padding: Any = static(default="VALID", converter=frozen)

    def __post_init__(self) -> None:
        """A layer made without a template is checked as well."""
        self.check(self.window_shape, self.strides, self.padding)

    @classmethod
    def check(
        cls, window_shape: Lengths, strides: Lengths | None = None, padding: Padding = "VALID"
    ) -> None:
        """All lengths are positive and for the same axes; no window is padding alone."""
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
        """Nothing to learn.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example, with 1 to 3 spatial axes.
            window_shape: of each spatial axis; an integer stands for all axes of the input, here
                and in `strides` and `padding`.
            strides: the steps from one window to the next; as long as the window if None.
            padding: "SAME", "VALID", an integer, or a pair (before, after) for each spatial axis.
        """
        info = {"window_shape": window_shape, "strides": strides, "padding": padding}
        made = LayerParams(info=info)
        cls.new(made).windows(single(cls, in_spec))
        return made

    def windows(self, x: Any) -> Windows:
        """The windows of an input, or of the spec of one.

        Raises:
            InputError: if none fits.
        """
        axes = axes_of(self.window_shape, self.strides, self.padding)
        fits = 2 <= jnp.ndim(x) <= 4 and axes in (None, jnp.ndim(x) - 1)
        self.check_input(fits, shape_of(axes), x)
        strides = self.window_shape if self.strides is None else self.strides
        windows = Windows.along(len(x.shape) - 1, self.window_shape, strides, self.padding)
        self.check_input(windows.fit(x.shape[:-1]), room_for(windows), x)
        return windows


def _reduced(x: jax.Array, windows: Windows, first: Any, reduce: Any) -> jax.Array:
    """The reduction of each window. Only from a NumPy scalar does JAX know its derivative."""
    start = np.asarray(first, x.dtype)[()]
    pads = (*windows.pads(x.shape[:-1]), (0, 0))
    return lax.reduce_window(x, start, reduce, (*windows.reach, 1), (*windows.strides, 1), pads)


def _wide(x: jax.Array) -> jax.Array:
    """Floating point numbers of 16 bits or less in float32: long sums lose less, and fit."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if narrow else x


class MaxPool(_Pool):
    """The maximum of each window over 1 to 3 spatial axes; padding is never the maximum.

    Attributes:
        window_shape: of each spatial axis, or one integer for all.
        strides: the steps from one window to the next; as long as the window if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.MaxPool(2)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([4., 3.], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, "*places channels"]:
        """The maxima; where several are equal the first has the gradient."""
        windows, x = self.windows(x), jnp.asarray(x)
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        lowest = -np.inf if floating else jnp.iinfo(x.dtype).min
        return _reduced(x, windows, lowest, lax.max)


class SumPool(_Pool):
    """The sum of each window over 1 to 3 spatial axes; padding counts as zeros.

    Attributes:
        window_shape: of each spatial axis, or one integer for all.
        strides: the steps from one window to the next; as long as the window if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.SumPool(2)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([5., 5.], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, "*places channels"]:
        """The sums, in the dtype of the input."""
        windows, x = self.windows(x), jnp.asarray(x)
        return _reduced(_wide(x), windows, 0, lax.add).astype(x.dtype)


class AvgPool(_Pool):
    """The mean of each window over 1 to 3 spatial axes, of what is no padding.

    PyTorch's `count_include_pad=False`; its default counts padding as zeros.

    Attributes:
        window_shape: of each spatial axis, or one integer for all.
        strides: the steps from one window to the next; as long as the window if None.
        padding: "SAME", "VALID", an integer, or (before, after) of each spatial axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AvgPool(2, padding=1)(jnp.array([[1.0], [4.0], [3.0], [2.0]])).ravel()
        Array([1. , 3.5, 2. ], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, "*places channels"]:
        """The means; of integers in float32."""
        windows, x = self.windows(x), jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
        total = _reduced(_wide(x), windows, 0, lax.add)
        return (total / _counts(windows, x.shape[:-1]).astype(total.dtype)).astype(x.dtype)


def _counts(windows: Windows, spatial: tuple[int, ...]) -> np.ndarray:
    """How many elements of the input each window holds, `[*places, 1]`."""
    along = []
    sizes = zip(spatial, windows.pads(spatial), windows.reach, windows.strides, strict=True)
    for n, (low, high), reach, stride in sizes:
        starts = np.arange(0, n + low + high - reach + 1, stride) - low
        along.append(np.minimum(starts + reach, n) - np.maximum(starts, 0))
    return functools.reduce(np.multiply.outer, along)[..., None]


class _AdaptivePool(Layer):
    """Cells, as many as wanted, over 1 to 3 spatial axes of one example, channels last."""

    output_size: int | tuple[int, ...] = static(converter=frozen)

    def __post_init__(self) -> None:
        """A layer made without a template is checked as well."""
        self.check(self.output_size)

    @classmethod
    def check(cls, output_size: Lengths) -> None:
        """There is at least one cell."""
        check_windows(cls.__name__, "VALID", ("VALID",), output_size=output_size)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, output_size: Lengths) -> LayerParams:
        """Nothing to learn.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example, with 1 to 3 spatial axes.
            output_size: how many cells there are along each spatial axis; an integer stands for
                all axes of the input.
        """
        made = LayerParams(info={"output_size": output_size})
        cls.new(made).sizes(single(cls, in_spec))
        return made

    def sizes(self, x: Any) -> tuple[int, ...]:
        """The number of cells along each axis of an input, or of the spec of one."""
        axes = axes_of(self.output_size)
        fits = 2 <= jnp.ndim(x) <= 4 and axes in (None, jnp.ndim(x) - 1) and 0 not in x.shape[:-1]
        self.check_input(fits, shape_of(axes), x)
        return spread(self.output_size, len(x.shape) - 1)


def _in_cells(x: jax.Array, axis: int, size: int, reduce: Callable[..., Any]) -> jax.Array:
    """The reductions of cells along one axis. They may overlap and differ in length."""
    n = x.shape[axis]
    ends = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
    cells = [lax.slice_in_dim(x, start, end, axis=axis) for start, end in ends]
    return jnp.stack([reduce(cell, axis) for cell in cells], axis)


class AdaptiveAvgPool(_AdaptivePool):
    """Means of `output_size` cells, whatever the lengths of the spatial axes.

    Cell `i` of an axis of length `n` reaches from `floor(i * n / size)` up to, not including,
    `ceil((i + 1) * n / size)`, as in PyTorch. Source: He et al., Spatial Pyramid Pooling in Deep
    Convolutional Networks for Visual Recognition, 2014.

    Attributes:
        output_size: the number of cells along each spatial axis, or one integer for all.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AdaptiveAvgPool(2)(jnp.array([[1.0], [3.0], [5.0]])).ravel()
        Array([2., 4.], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, "*cells channels"]:
        """The means; of integers in float32."""
        sizes, x = self.sizes(x), jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
        y = _wide(x)
        for axis, size in enumerate(sizes):
            y = _in_cells(y, axis, size, jnp.mean)
        return y.astype(x.dtype)


class AdaptiveMaxPool(_AdaptivePool):
    """Maxima of `output_size` cells, whatever the lengths of the spatial axes.

    The cells are those of `AdaptiveAvgPool`.

    Attributes:
        output_size: the number of cells along each spatial axis, or one integer for all.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AdaptiveMaxPool(2)(jnp.array([[1.0], [3.0], [5.0]])).ravel()
        Array([3., 5.], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, "*cells channels"]:
        """The maxima; where several are equal they share the gradient."""
        sizes, y = self.sizes(x), jnp.asarray(x)
        for axis, size in enumerate(sizes):
            y = _in_cells(y, axis, size, jnp.max)
        return y


class _GlobalPool(Layer):
    """All spatial axes of one example as one cell."""

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any) -> LayerParams:
        """Nothing to learn.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example.
        """
        cls.new(LayerParams()).spatial(single(cls, in_spec))
        return LayerParams()

    def spatial(self, x: Any) -> tuple[int, ...]:
        """The spatial axes of an input, or of the spec of one."""
        self.check_input(jnp.ndim(x) > 1 and 0 not in x.shape[:-1], "[*spatial, channels]", x)
        return tuple(range(len(x.shape) - 1))


class GlobalAvgPool(_GlobalPool):
    """The mean of each channel over all spatial axes.

    Source: Lin et al., Network In Network, 2013.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.GlobalAvgPool()(jnp.array([[1.0, 0.0], [3.0, 0.0]]))
        Array([2., 0.], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, " channels"]:
        """The means; of integers in float32."""
        return jnp.mean(jnp.asarray(x), self.spatial(x))


class GlobalMaxPool(_GlobalPool):
    """The maximum of each channel over all spatial axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.GlobalMaxPool()(jnp.array([[1.0, 0.0], [3.0, 0.0]]))
        Array([3., 0.], dtype=float32)
    """

    def call(self, x: Float[Array, "*spatial channels"]) -> Float[Array, " channels"]:
        """The maxima; where several are equal they share the gradient."""
        return jnp.max(jnp.asarray(x), self.spatial(x))
