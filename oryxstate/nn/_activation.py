"""Activations with learned parameters. Others are plain functions, such as `jax.nn.relu`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param, static
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._placed import where
from oryxstate.nn._precision import computing, last


class PReLU(Layer):
    """`y = x` where `x >= 0`, else `slope * x`, with a learned slope.

    Source: He et al., Delving Deep into Rectifiers, 2015.

    Attributes:
        slope: the slope of negative inputs, one for all features, `[]`, or `[features]`.
        dtype: the dtype to compute in; that of input and slope together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x = jnp.array([-2.0, 2.0])
        >>> ox.init(nn.PReLU.of())(jax.random.key(0), x)(x).tolist()
        [-0.5, 2.0]
    """

    slope: Float[Array, "..."] = param(axes=(...,))
    dtype: Any = static(default=None)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        initial: float = 0.25,
        *,
        per_feature: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Fill the slope with a constant.

        Args:
            init_key: not used.
            in_spec: `[..., features]`, or any shape with a single slope.
            initial: the first value of the slope.
            per_feature: whether each feature has a slope of its own.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the slope.
        """
        if single(cls, in_spec).ndim == 0 and per_feature:
            raise cls.wrong_input("[..., features]", in_spec)
        shape = in_spec.shape[-1:] if per_feature else ()
        slope = jnp.full(shape, initial, param_dtype)
        return LayerParams(params={"slope": slope}, info={"dtype": dtype})

    def call(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Multiply the negative elements of the input by the slope."""
        shape = self.slope.shape
        fits = not shape or x.shape[-1:] == shape
        self.check_input(fits, f"[..., {shape[0]}]" if shape else "an array", x)
        x, slope = computing(self.dtype, x, self.slope)
        rises = x >= 0
        negative = jnp.where(rises, jnp.zeros_like(x), x)  # the slope's derivative; 0 * inf is NaN
        return where(rises, x, last(slope, x) * negative)
