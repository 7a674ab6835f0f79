"""Convolutions that treat each channel separately."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate.nn._conv import MODES, Conv, Convolution
from oryxstate.nn._initializers import Initializer, lecun, zeros
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._parts import build
from oryxstate.nn._precision import positive
from oryxstate.nn._windows import Lengths, Padding, axes_of, check_windows, shape_of


class DepthwiseConv(Convolution):
    """A convolution of each channel by itself, to `multiplier` channels.

        y[i, o] = sum over k of x[i * strides + k * dilation - before, o // multiplier]
                  * kernel[k, 0, o] + bias[o]

    This is `Conv` with one group for each channel. Source: Chollet, Xception: Deep Learning with
    Depthwise Separable Convolutions, 2016.

    Attributes:
        kernel: `[*kernel_size, 1, channels * multiplier]`.
        bias: `[channels * multiplier]`, or None.
        strides: the steps from one place of the kernel to the next.
        padding: "SAME", "VALID", "CIRCULAR", an integer, or (before, after) of each spatial axis.
        dilation: the steps from one element of the kernel to the next.
        groups: the number of channels.
        dtype: the dtype to compute in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> depthwise = nn.DepthwiseConv.of((3, 3), multiplier=2, padding="SAME")
        >>> depthwise.spec(jnp.ones((8, 8, 3)))
        float32[8,8,6]
    """

    @classmethod
    def check(
        cls,
        kernel_size: Lengths,
        strides: Lengths = 1,
        padding: Padding = "VALID",
        *,
        multiplier: int = 1,
        dilation: Lengths = 1,
        **options: Any,
    ) -> None:
        """Check that all lengths are positive and belong to the same axes."""
        positive(cls.__name__, "multiplier", multiplier)
        lengths = {"kernel_size": kernel_size, "strides": strides, "dilation": dilation}
        check_windows(cls.__name__, padding, MODES, **lengths)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        kernel_size: Lengths,
        strides: Lengths = 1,
        padding: Padding = "VALID",
        *,
        multiplier: int = 1,
        dilation: Lengths = 1,
        use_bias: bool = True,
        kernel_init: Initializer = lecun,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters.

        Args:
            init_key: a random key.
            in_spec: `[*spatial, channels]`, of one example, with 1 to 3 spatial axes.
            kernel_size: the length along each spatial axis, as in `Conv`.
            strides: the steps from one place of the kernel to the next.
            padding: as in `Conv`.
            multiplier: the number of output channels for each input channel.
            dilation: the steps from one element of the kernel to the next.
            use_bias: whether there is a bias.
            kernel_init: draws the kernel, `(key, shape, dtype) -> array`.
            bias_init: draws the bias.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
        """
        if single(cls, in_spec).ndim == 0 or in_spec.shape[-1] == 0:
            axes = axes_of(kernel_size, strides, dilation, padding)
            raise cls.wrong_input(shape_of(axes), in_spec)
        channels = in_spec.shape[-1]
        inits = kernel_init, bias_init if use_bias else None
        info = {"strides": strides, "padding": padding, "dilation": dilation, "groups": channels}
        features = channels * multiplier
        return cls._draw(
            init_key, in_spec, features, kernel_size, inits, param_dtype, dtype=dtype, **info
        )


class SeparableConv(Layer):
    """A `DepthwiseConv` without bias, then a `Conv` of kernel size 1 over channels.

    Source: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, 2016.

    Attributes:
        depthwise: over space, `in` to `in * multiplier` channels.
        pointwise: over channels, to `features`, with the bias.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> conv = ox.init(nn.SeparableConv.of(16, 3))(jax.random.key(0), jnp.ones((8, 8, 4)))
        >>> conv.depthwise.kernel.shape, conv.pointwise.kernel.shape
        ((3, 3, 1, 4), (1, 1, 4, 16))
        >>> conv(jnp.ones((8, 8, 4))).shape
        (6, 6, 16)
    """

    depthwise: DepthwiseConv
    pointwise: Conv

    @classmethod
    def check(
        cls,
        features: int,
        kernel_size: Lengths,
        strides: Lengths = 1,
        padding: Padding = "VALID",
        *,
        multiplier: int = 1,
        dilation: Lengths = 1,
        **options: Any,
    ) -> None:
        """Check that all lengths are positive and belong to the same axes."""
        positive(cls.__name__, "features", features)
        positive(cls.__name__, "multiplier", multiplier)
        lengths = {"kernel_size": kernel_size, "strides": strides, "dilation": dilation}
        check_windows(cls.__name__, padding, MODES, **lengths)

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
        multiplier: int = 1,
        dilation: Lengths = 1,
        use_bias: bool = True,
        kernel_init: Initializer = lecun,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters of both convolutions.

        Args:
            init_key: a random key.
            in_spec: `[*spatial, in]`, of one example, with 1 to 3 spatial axes.
            features: the number of channels of the output.
            kernel_size: the length along each spatial axis, as in `Conv`.
            strides: the steps from one place of the kernel to the next.
            padding: as in `Conv`.
            multiplier: the number of channels between both for each input channel.
            dilation: the steps from one element of the kernel to the next.
            use_bias: whether there is a bias, after both.
            kernel_init: draws both kernels, `(key, shape, dtype) -> array`.
            bias_init: draws the bias.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
        """
        keys = jax.random.split(init_key)
        both: Any = {"kernel_init": kernel_init, "dtype": dtype, "param_dtype": param_dtype}
        first = DepthwiseConv.of(
            kernel_size,
            strides,
            padding,
            multiplier=multiplier,
            dilation=dilation,
            use_bias=False,
            **both,
        )
        depthwise, between = build(first, keys[0], in_spec, "depthwise")
        second = Conv.of(features, 1, use_bias=use_bias, bias_init=bias_init, **both)
        pointwise, _ = build(second, keys[1], between(), "pointwise")
        return LayerParams(params={"depthwise": depthwise, "pointwise": pointwise})

    def call(self, x: Float[Array, "*spatial in"]) -> Float[Array, "*places out"]:
        """Apply the layer to one example, channels last."""
        return self.pointwise(self.depthwise(x))
