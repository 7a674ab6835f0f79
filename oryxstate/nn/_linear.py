"""The dense layer, a linear map of the last axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param, static
from oryxstate.nn._initializers import Initializer, drawn, glorot, zeros
from oryxstate.nn._layer import Layer, LayerParams, single, spec_in
from oryxstate.nn._precision import computing, inlined, last, positive


class Dense(Layer):
    """`y = x @ kernel + bias`, over the last axis of the input.

    Attributes:
        kernel: `[in, out]`.
        bias: `[out]`, or None.
        dtype: the dtype to compute in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> dense = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
        >>> dense
        Dense(kernel=f32[3,2], bias=f32[2])
        >>> dense(jnp.ones((5, 3))).shape
        (5, 2)
    """

    kernel: Float[Array, "in out"] = param()
    bias: Float[Array, " out"] | None = param()
    dtype: Any = static(default=None)

    @classmethod
    def check(cls, features: int, **options: Any) -> None:
        """Check that the number of features is positive."""
        positive(cls.__name__, "features", features)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        features: int,
        *,
        use_bias: bool = True,
        kernel_init: Initializer = glorot,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters.

        Args:
            init_key: a random key.
            in_spec: `[..., in]`.
            features: the length of the last axis of the output.
            use_bias: whether there is a bias.
            kernel_init: draws the kernel, `(key, shape, dtype) -> array`.
            bias_init: draws the bias.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
        """
        if single(cls, in_spec).ndim == 0:
            raise cls.wrong_input("[..., in]", in_spec)
        kernel_key, bias_key = jax.random.split(init_key)
        kernel = drawn(kernel_init, kernel_key, (in_spec.shape[-1], features), param_dtype)
        bias = bias_init(bias_key, (features,), param_dtype) if use_bias else None
        return LayerParams(params={"kernel": kernel, "bias": bias}, info={"dtype": dtype})

    def _out_spec(self, in_spec: Any) -> Any:
        return spec_in(
            self.dtype, (*in_spec.shape[:-1], self.kernel.shape[1]), in_spec, self.kernel, self.bias
        )

    def call(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """Map the last axis linearly."""
        size = self.kernel.shape[0]
        self.check_input(jnp.ndim(x) > 0 and x.shape[-1] == size, f"[..., {size}]", x)
        return _affine(x, self.kernel, self.bias, dtype=self.dtype)


@inlined
def _affine(x, kernel, bias, *, dtype):
    x, kernel, bias = computing(dtype, x, kernel, bias)
    y = x @ kernel
    return y if bias is None else y + last(bias, y)
