"""Pooling layers whose output size does not depend on the input size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real

from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._pool_windows import numbers
from oryxstate.nn._precision import wide, with_floats
from oryxstate.nn._windows import Lengths, axes_of, check_windows, frozen, shape_of, spread


class _AdaptivePool(Layer):
    """The base class of pooling into a given number of cells, channels last."""

    output_size: int | tuple[int, ...] = static(converter=frozen)

    _ordered: ClassVar[bool] = False  # whether numbers are compared

    def _check_fields(self) -> None:
        self.check(self.output_size)

    @classmethod
    def check(cls, output_size: Lengths) -> None:
        """Check that there is at least one cell."""
        check_windows(cls.__name__, "VALID", ("VALID",), output_size=output_size)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, output_size: Lengths) -> LayerParams:
        """Return the configuration; the layer has no parameters.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example, with 1 to 3 spatial axes.
            output_size: the number of cells along each spatial axis; an integer applies to all axes
                of the input.
        """
        made = LayerParams(info={"output_size": output_size})
        cls.new(made)._sizes(single(cls, in_spec))
        return made

    def _sizes(self, x: Any) -> tuple[int, ...]:
        """Return the number of cells along each axis of an input, or of the spec of one."""
        self.check_input(*numbers(x, ordered=self._ordered), x)
        axes = axes_of(self.output_size)
        fits = 2 <= np.ndim(x) <= 4 and axes in (None, np.ndim(x) - 1) and 0 not in x.shape[:-1]
        self.check_input(fits, shape_of(axes), x)
        return spread(self.output_size, len(x.shape) - 1)


def _in_cells(x: jax.Array, axis: int, size: int, reduce: Callable[..., Any]) -> jax.Array:
    """Reduce cells along one axis. Cells may overlap and differ in length."""
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

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AdaptiveAvgPool(2)(jnp.array([[1.0], [3.0], [5.0]])).ravel()
        Array([2., 4.], dtype=float32)
    """

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Float[Array, "*cells channels"]:
        """Return the means, for integers in float32, for 64-bit integers in float64."""
        sizes, x = self._sizes(x), with_floats(jnp.asarray(x))
        y = wide(x)
        for axis, size in enumerate(sizes):
            y = _in_cells(y, axis, size, jnp.mean)
        return y.astype(x.dtype)


class AdaptiveMaxPool(_AdaptivePool):
    """Maxima of `output_size` cells, whatever the lengths of the spatial axes.

    The cells are those of `AdaptiveAvgPool`.

    Attributes:
        output_size: the number of cells along each spatial axis, or one integer for all.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.AdaptiveMaxPool(2)(jnp.array([[1.0], [3.0], [5.0]])).ravel()
        Array([3., 5.], dtype=float32)
    """

    _ordered = True

    def call(
        self, x: Real[Array | np.ndarray, "*spatial channels"]
    ) -> Real[Array, "*cells channels"]:
        """Return the maxima. Equal elements share the gradient."""
        sizes, y = self._sizes(x), jnp.asarray(x)
        for axis, size in enumerate(sizes):
            y = _in_cells(y, axis, size, jnp.max)
        return y


class _GlobalPool(Layer):
    """The base class of pooling over all spatial axes."""

    _ordered: ClassVar[bool] = False  # whether numbers are compared

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any) -> LayerParams:
        """Return the configuration; the layer has no parameters.

        Args:
            init_key: not used.
            in_spec: `[*spatial, channels]`, of one example.
        """
        cls.new(LayerParams())._spatial(single(cls, in_spec))
        return LayerParams()

    def _spatial(self, x: Any) -> tuple[int, ...]:
        """Return the spatial axes of an input, or of the spec of one."""
        self.check_input(*numbers(x, ordered=self._ordered), x)
        self.check_input(np.ndim(x) > 1 and 0 not in x.shape[:-1], "[*spatial, channels]", x)
        return tuple(range(len(x.shape) - 1))


class GlobalAvgPool(_GlobalPool):
    """The mean of each channel over all spatial axes.

    Source: Lin et al., Network In Network, 2013.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.GlobalAvgPool()(jnp.array([[1.0, 0.0], [3.0, 0.0]]))
        Array([2., 0.], dtype=float32)
    """

    def call(self, x: Real[Array | np.ndarray, "*spatial channels"]) -> Float[Array, " channels"]:
        """Return the means, for integers in float32, for 64-bit integers in float64."""
        return jnp.mean(with_floats(jnp.asarray(x)), self._spatial(x))


class GlobalMaxPool(_GlobalPool):
    """The maximum of each channel over all spatial axes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.GlobalMaxPool()(jnp.array([[1.0, 0.0], [3.0, 0.0]]))
        Array([3., 0.], dtype=float32)
    """

    _ordered = True

    def call(self, x: Real[Array | np.ndarray, "*spatial channels"]) -> Real[Array, " channels"]:
        """Return the maxima. Equal elements share the gradient."""
        return jnp.max(jnp.asarray(x), self._spatial(x))
