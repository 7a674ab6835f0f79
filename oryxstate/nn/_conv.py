"""The convolution, and what all convolutions share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from oryxstate import _explicit
from oryxstate._module._fields import param, static
from oryxstate.nn._grouped_conv import grouped_conv, is_summed_wrongly
from oryxstate.nn._initializers import Initializer, lecun, zeros
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._placed import for_windows
from oryxstate.nn._precision import computing, last, positive
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

MODES = ("SAME", "VALID", "CIRCULAR")


class Convolution(Layer):
    """The base class of convolutions: fields, and a call on one example."""

    kernel: Float[Array, "*window in_per_group out"] = param(axes=(..., "conv_in", "conv_out"))
    bias: Float[Array, " out"] | None = param(axes=("conv_out",))
    strides: int | tuple[int, ...] = static(default=1, converter=frozen)
    padding: Any = static(default="VALID", converter=frozen)
    dilation: int | tuple[int, ...] = static(default=1, converter=frozen)
    groups: int = static(default=1)
    dtype: Any = static(default=None)

    def _check_fields(self) -> None:
        layer = type(self).__name__
        positive(layer, "groups", self.groups)
        check_windows(layer, self.padding, MODES, strides=self.strides, dilation=self.dilation)

    @classmethod
    def _draw(
        cls,
        init_key: Any,
        in_spec: Any,
        features: int,
        kernel_size: Lengths,
        inits: tuple[Initializer, Initializer | None],
        param_dtype: Any,
        **info: Any,
    ) -> LayerParams:
        """Draw kernel and bias for an input that fits."""
        axes = axes_of(kernel_size, info["strides"], info["dilation"], info["padding"])
        ndim, channels = single(cls, in_spec).ndim, in_spec.shape[-1] if in_spec.shape else 0
        if not 2 <= ndim <= 4 or axes not in (None, ndim - 1):
            raise cls.wrong_input(shape_of(axes), in_spec)
        if channels == 0 or channels % info["groups"]:
            some = "channels" if info["groups"] == 1 else f"a multiple of {info['groups']} channels"
            raise cls.wrong_input(shape_of(ndim - 1, some), in_spec)
        keys = jax.random.split(init_key)
        shape = (*spread(kernel_size, ndim - 1), channels // info["groups"], features)
        kernel = inits[0](keys[0], shape, param_dtype)
        bias = None if inits[1] is None else inits[1](keys[1], (features,), param_dtype)
        made = LayerParams(params={"kernel": kernel, "bias": bias}, info=info)
        cls.new(made)._check_shape(in_spec)
        return made

    def _check_shape(self, x: Any) -> None:
        """Raise for an input, or the spec of one, without room for the kernel."""
        axes, channels = self.kernel.ndim - 2, self.kernel.shape[-2] * self.groups
        fits = np.ndim(x) == axes + 1 and x.shape[-1] == channels
        self.check_input(fits, shape_of(axes, channels), x)
        self.check_input(self._has_room(x.shape[:-1]), self._room(channels), x)

    @property
    def _windows(self) -> Windows:
        """The windows that the kernel slides over."""
        *lengths, _, _ = self.kernel.shape
        return Windows.along(len(lengths), lengths, self.strides, self.padding, self.dilation)

    def _has_room(self, spatial: tuple[int, ...]) -> bool:
        """Return whether there is any output for an input with these spatial axes."""
        return self._windows.fit(spatial)

    def _room(self, channels: int) -> str:
        return room_for(self._windows, channels)

    def call(self, x: Float[Array, "*spatial in"]) -> Float[Array, "*places out"]:
        """Apply the layer to one example, channels last."""
        self._check_shape(x)
        x, kernel, bias = computing(self.dtype, x, self.kernel, self.bias)
        y = self._convolve(x, kernel)
        return y if bias is None else y + last(bias, y)

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return the output without the bias."""
        pads = self._windows.pads(x.shape[:-1])
        if self.padding == "CIRCULAR":
            x, pads = jnp.pad(x, (*pads, (0, 0)), mode="wrap"), ((0, 0),) * len(pads)
        return self._slide(x, kernel, pads, self._windows.strides, (1,) * len(pads))

    def _slide(
        self, x: jax.Array, kernel: jax.Array, pads: Any, strides: Any, spacing: Any
    ) -> jax.Array:
        """Return the sums over windows of an input with `spacing` from one element to the next."""
        names, dilation = "DHW"[-len(pads) :], spread(self.dilation, len(pads))
        if self.groups > 1 and is_summed_wrongly(x):
            return grouped_conv(x, kernel, self.groups, pads, strides, spacing, dilation)
        kernel, placed = for_windows(x, kernel)
        y = lax.conv_general_dilated(
            x[None],
            kernel,
            strides,
            pads,
            lhs_dilation=spacing,
            rhs_dilation=dilation,
            dimension_numbers=(f"N{names}C", f"{names}IO", f"N{names}C"),
            feature_group_count=self.groups,
            **placed,
        )
        return _explicit.settled(y[0])


class WithFeatures(Convolution):
    """A convolution to any number of features, with the options of `Conv`."""

    @classmethod
    def check(
        cls,
        features: int,
        kernel_size: Lengths,
        strides: Lengths = 1,
        padding: Padding = "VALID",
        *,
        dilation: Lengths = 1,
        groups: int = 1,
        **options: Any,
    ) -> None:
        """Check lengths and axes, and that `groups` divides `features`."""
        positive(cls.__name__, "features", features)
        positive(cls.__name__, "groups", groups)
        lengths = {"kernel_size": kernel_size, "strides": strides, "dilation": dilation}
        check_windows(cls.__name__, padding, MODES, **lengths)
        if features % groups:
            raise ValueError(
                f"{cls.__name__}: `features` must be a multiple of `groups`, got {features} "
                f"features in {groups} groups."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        features: int,
        kernel_size: Lengths,
        strides: Lengths = 1,
        padding: Padding = "VALID",
        *,
        dilation: Lengths = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = lecun,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters.

        Args:
            init_key: a random key.
            in_spec: `[*spatial, in]`, of one example, with 1 to 3 spatial axes.
            features: the number of channels of the output.
            kernel_size: of each spatial axis; an integer applies to all axes of the input, here and
                in `strides`, `padding` and `dilation`.
            strides: the steps from one place of the kernel to the next.
            padding: "SAME", "VALID", "CIRCULAR", an integer, or a pair (before, after) for each
                spatial axis.
            dilation: the steps from one element of the kernel to the next.
            groups: the number of groups of channels; each group of outputs sees one group of
                inputs.
            use_bias: whether there is a bias.
            kernel_init: draws the kernel, `(key, shape, dtype) -> array`.
            bias_init: draws the bias.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
        """
        inits = kernel_init, bias_init if use_bias else None
        info = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
        return cls._draw(
            init_key, in_spec, features, kernel_size, inits, param_dtype, dtype=dtype, **info
        )


class Conv(WithFeatures):
    """Slide a kernel over 1 to 3 spatial axes of one example, channels last.

        y[i, o] = sum over k, c of x[i * strides + k * dilation - before, c] * kernel[k, c, o]
                  + bias[o]

    where `before` is the padding, zeros unless it is "CIRCULAR" (periodic). The output has
    `(n + before + after - reach) // strides + 1` places along an axis, `reach` being
    `(kernel_size - 1) * dilation + 1`; with "SAME" and "CIRCULAR" `ceil(n / strides)`. Source:
    Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.

    Attributes:
        kernel: `[*kernel_size, in / groups, out]`.
        bias: `[out]`, or None.
        strides: the steps from one place of the kernel to the next.
        padding: "SAME", "VALID", "CIRCULAR", an integer, or (before, after) of each spatial axis.
        dilation: the steps from one element of the kernel to the next.
        groups: the number of groups of channels.
        dtype: the dtype to compute in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> image = jnp.ones((8, 8, 3))
        >>> conv = ox.init(nn.Conv.of(16, (3, 3), strides=2, padding="SAME"))(
        ...     jax.random.key(0), image
        ... )
        >>> conv(image).shape
        (4, 4, 16)
        >>> nn.Conv.of(16, 5).spec(jnp.ones((8, 3)))  # along the only axis
        float32[4,16]
    """
