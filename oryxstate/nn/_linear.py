"""The dense layer, a linear map of the last axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param, static
from oryxstate.nn._initializers import Initializer, drawn, glorot, zeros
from oryxstate.nn._layer import Layer, LayerParams, single, spec_in
from oryxstate.nn._placed import matmul
from oryxstate.nn._precision import check_names, computing, inlined, last, positive


class Dense(Layer):
    """`y = x @ kernel + bias`, over the last axis of the input.

    Attributes:
        kernel: `[in, out]`.
        bias: `[out]`, or None.
        dtype: the dtype to compute in; that of input and parameters together if None.
        axes: the logical names of input and output features, for `oryxstate.shardings`.

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

    kernel: Float[Array, "in out"] = param(axes=lambda dense: dense.axes)
    bias: Float[Array, " out"] | None = param(axes=lambda dense: dense.axes[1:])
    dtype: Any = static(default=None)
    axes: tuple[str | None, str | None] = static(default=("embed", "mlp"), repr=False)

    def _check_fields(self) -> None:
        check_names(type(self).__name__, self.axes, 2)

    @classmethod
    def check(cls, features: int, *, axes: Any = ("embed", "mlp"), **options: Any) -> None:
        """Check that the number of features is positive, and that `axes` has two names."""
        positive(cls.__name__, "features", features)
        check_names(cls.__name__, axes, 2)

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
        axes: tuple[str | None, str | None] = ("embed", "mlp"),
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
            axes: the logical names of input and output features. In a pair of layers give the
                second one `("mlp", "embed")`: what the first splits by output, it splits by input.
        """
        if single(cls, in_spec).ndim == 0:
            raise cls.wrong_input("[..., in]", in_spec)
        keys = jax.random.split(init_key)
        kernel = drawn(kernel_init, keys[0], (in_spec.shape[-1], features), param_dtype)
        bias = bias_init(keys[1], (features,), param_dtype) if use_bias else None
        return LayerParams(
            params={"kernel": kernel, "bias": bias}, info={"dtype": dtype, "axes": axes}
        )

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
    y = matmul(x, kernel)
    return y if bias is None else y + last(bias, y)
