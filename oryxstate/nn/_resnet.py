"""The block of a residual network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate.nn._conv import Conv
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._precision import positive
from oryxstate.nn._template import Template

batch_norm = BatchNorm.of()


class ResNetBlock(Layer):
    """`relu(body(x) + shortcut(x))`, with two convolutions of width 3 and norms as body.

        body     = conv >> norm >> relu >> conv >> norm shortcut = conv of width 1 >> norm, or the
        identity if the shapes agree

    The first convolution of the body and that of the shortcut have the strides; none has a bias,
    since a norm follows. Padding is "SAME", which with strides pads the end rather than the start,
    unlike PyTorch. Source: He et al., Deep Residual Learning for Image Recognition, 2015.

    Attributes:
        body: `[..., in]` to `[..., features]`.
        shortcut: likewise, or None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> blocks = nn.ResNetBlock.of(8) >> nn.ResNetBlock.of(16, strides=2)
        >>> model = ox.init(blocks)(jax.random.key(0), jnp.ones((6, 6, 8)))
        >>> model(jnp.ones((6, 6, 8)), training=False).shape
        (3, 3, 16)
    """

    body: Any
    shortcut: Any

    @classmethod
    def check(
        cls,
        features: int,
        strides: int | tuple[int, ...] = 1,
        *,
        norm: Any = batch_norm,
        **options: Any,
    ) -> None:
        """Check that features and strides are positive and `norm` is a template."""
        positive(cls.__name__, "features", features)
        positive(cls.__name__, "strides", *(strides if isinstance(strides, tuple) else (strides,)))
        check_parts(cls.__name__, (norm,))
        if not isinstance(norm, Template):
            raise TypeError(
                f"{cls.__name__} makes several norms, so `norm` is a template, as "
                f"`BatchNorm.of()`, got {norm!r}."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        features: int,
        strides: int | tuple[int, ...] = 1,
        *,
        norm: Template[Any] = batch_norm,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Make body and shortcut, each with its own key.

        Args:
            init_key: a random key.
            in_spec: `[..., in]`, with one to three spatial axes.
            features: the number of output features.
            strides: the strides of the first convolution.
            norm: the template of the norms.
            dtype: the dtype that the convolutions compute in; set that of the norm in `norm`.
            param_dtype: the dtype of the parameters of the convolutions.
        """
        options = {"use_bias": False, "dtype": dtype, "param_dtype": param_dtype}
        first = Conv.of(features, 3, strides, "SAME", **options)
        body = first >> norm >> jax.nn.relu >> Conv.of(features, 3, 1, "SAME", **options) >> norm
        keys = jax.random.split(init_key)
        way, infer = build(body, keys[0], single(cls, in_spec), "body")
        shortcut = None
        if infer().shape != in_spec.shape:
            projection = Conv.of(features, 1, strides, "SAME", **options) >> norm
            shortcut, _ = build(projection, keys[1], in_spec, "shortcut")
        return LayerParams(params={"body": way, "shortcut": shortcut})

    def call(self, x: Float[Array, "*spatial in"]) -> Float[Array, "*places features"]:
        """Apply the layer to one example, channels last."""
        around = x if self.shortcut is None else self.shortcut(x)
        y = self.body(x)
        return jax.nn.relu(y + around.astype(y.dtype))
