"""Layers that normalize each example over some of its axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from oryxstate._module._fields import param, static
from oryxstate.nn._layer import Layer, LayerParams, single, spec_in
from oryxstate.nn._placed import along
from oryxstate.nn._precision import not_negative, wide


def standardized(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:
    """Shift and scale `x` to mean 0 and variance 1 over some axes, in two passes."""
    centered = x - x.mean(axes, keepdims=True)
    variance = jnp.square(centered).mean(axes, keepdims=True)
    return centered * lax.rsqrt(variance + epsilon)


def affine(
    y: jax.Array, axes: tuple[int, ...], scale: Any, bias: Any, x: jax.Array, dtype: Any
) -> jax.Array:
    """Return `y * scale + bias` along `axes`, in `dtype` or else in the promoted dtype."""
    given = [v.dtype for v in (x, scale, bias) if v is not None]
    dtype = jnp.result_type(*given) if dtype is None else dtype
    others = tuple(a for a in range(-y.ndim, 0) if a not in axes)
    if scale is not None:
        y = y * jnp.expand_dims(along(scale.astype(y.dtype), y, axes), others)
    if bias is not None:
        y = y + jnp.expand_dims(along(bias.astype(y.dtype), y, axes), others)
    return y.astype(dtype)


def _names(norm: Any) -> tuple[str, ...]:
    """Return the logical names of the axes of scale and bias."""
    return ("norm",) * len(norm.axes)


class LayerNorm(Layer):
    """`y = (x - mean) / sqrt(variance + epsilon) * scale + bias`, over the last or given axes.

    The statistics belong to one example; the variance is biased, and computed in two passes, at
    least in float32. (`epsilon` is that of PyTorch and Equinox; Flax has 1e-6.) Source: Ba et al.,
    Layer Normalization, 2016.

    Attributes:
        scale: the lengths of `axes`, in the order of the input, or None.
        bias: like `scale`, or None.
        axes: the axes to average over, counted from the end.
        epsilon: added to the variance.
        dtype: the dtype of the output; if None, that of the input and parameters together.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x = jnp.array([1.0, 3.0])
        >>> norm = ox.init(nn.LayerNorm.of())(jax.random.key(0), x)
        >>> norm(x).round(3).tolist()
        [-1.0, 1.0]
    """

    scale: Float[Array, "..."] | None = param(axes=_names)
    bias: Float[Array, "..."] | None = param(axes=_names)
    axes: tuple[int, ...] = static(default=(-1,))
    epsilon: float = static(default=1e-5)
    dtype: Any = static(default=None)

    def _check_fields(self) -> None:
        _check_from_end(type(self).__name__, self.axes)
        not_negative(type(self).__name__, "epsilon", self.epsilon)

    @classmethod
    def check(
        cls, axes: int | tuple[int, ...] = -1, *, epsilon: float = 1e-5, **options: Any
    ) -> None:
        """Check that `axes` is an integer or several, and `epsilon` not negative."""
        _check_axes(cls.__name__, axes)
        not_negative(cls.__name__, "epsilon", epsilon)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        axes: int | tuple[int, ...] = -1,
        *,
        epsilon: float = 1e-5,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Return scale 1 and bias 0.

        Args:
            init_key: not used.
            in_spec: of one example, with these axes.
            axes: the axes to average over.
            epsilon: added to the variance.
            use_scale: whether there is a scale.
            use_bias: whether there is a bias.
            dtype: of the output.
            param_dtype: the dtype of the parameters.
        """
        axes = _from_end(cls, axes, in_spec)
        ones = jnp.ones([in_spec.shape[a] for a in axes], param_dtype)
        return LayerParams(
            params={"scale": ones if use_scale else None, "bias": 0 * ones if use_bias else None},
            info={"axes": axes, "epsilon": epsilon, "dtype": dtype},
        )

    def _out_spec(self, in_spec: Any) -> Any:
        return spec_in(self.dtype, in_spec.shape, in_spec, self.scale, self.bias)

    def call(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Normalize the input."""
        fits, expected = fit(x, self.axes, self.scale, self.bias)
        self.check_input(fits, expected, x)
        y = standardized(wide(x), self.axes, self.epsilon)
        return affine(y, self.axes, self.scale, self.bias, x, self.dtype)


class RMSNorm(Layer):
    """`y = x / sqrt(mean(x**2) + epsilon) * scale`, over the last or given axes.

    The mean is computed at least in float32. (PyTorch's `eps` is the machine epsilon by default,
    Flax's 1e-6.) Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.

    Attributes:
        scale: the lengths of `axes`, in the order of the input, or None.
        axes: the axes to average over, counted from the end.
        epsilon: added to the mean of the squares.
        dtype: the dtype of the output; if None, that of the input and the scale together.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.RMSNorm(jnp.ones(2))(jnp.array([3.0, 3.0])).round(3).tolist()
        [1.0, 1.0]
    """

    scale: Float[Array, "..."] | None = param(axes=_names)
    axes: tuple[int, ...] = static(default=(-1,))
    epsilon: float = static(default=1e-5)
    dtype: Any = static(default=None)

    def _check_fields(self) -> None:
        _check_from_end(type(self).__name__, self.axes)
        not_negative(type(self).__name__, "epsilon", self.epsilon)

    @classmethod
    def check(
        cls, axes: int | tuple[int, ...] = -1, *, epsilon: float = 1e-5, **options: Any
    ) -> None:
        """Check that `axes` is an integer or several, and `epsilon` not negative."""
        _check_axes(cls.__name__, axes)
        not_negative(cls.__name__, "epsilon", epsilon)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        axes: int | tuple[int, ...] = -1,
        *,
        epsilon: float = 1e-5,
        use_scale: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Return scale 1. The arguments are those of `LayerNorm`."""
        axes = _from_end(cls, axes, in_spec)
        ones = jnp.ones([in_spec.shape[a] for a in axes], param_dtype)
        return LayerParams(
            params={"scale": ones if use_scale else None},
            info={"axes": axes, "epsilon": epsilon, "dtype": dtype},
        )

    def _out_spec(self, in_spec: Any) -> Any:
        return spec_in(self.dtype, in_spec.shape, in_spec, self.scale)

    def call(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Divide the input by its root mean square."""
        fits, expected = fit(x, self.axes, self.scale)
        self.check_input(fits, expected, x)
        y = wide(x)
        y = y * lax.rsqrt(jnp.square(y).mean(self.axes, keepdims=True) + self.epsilon)
        return affine(y, self.axes, self.scale, None, x, self.dtype)


def _check_axes(layer: str, axes: Any) -> None:
    given = axes if isinstance(axes, tuple | list) else (axes,)
    if not given or not all(isinstance(a, int) for a in given):
        raise ValueError(f"{layer}: `axes` must be an integer or several, got {axes!r}.")


def _check_from_end(layer: str, axes: Any) -> None:
    """Raise unless the axes are as a layer holds them."""
    _check_axes(layer, axes)
    if not isinstance(axes, tuple) or any(a >= 0 for a in axes) or list(axes) != sorted(set(axes)):
        raise ValueError(
            f"{layer}: `axes` of a layer are a tuple, counted from the end and in order, such as "
            f"(-2, -1), got {axes!r}. `{layer}.of(axes)` takes them in any form."
        )


def _from_end(cls: type[Layer], axes: Any, in_spec: Any) -> tuple[int, ...]:
    """Return the axes of an input of this spec, negative and in order."""
    count, given = single(cls, in_spec).ndim, (axes,) if isinstance(axes, int) else tuple(axes)
    found = sorted({a if a < 0 else a - count for a in given})
    if len(found) < len(given) or not all(-count <= a < 0 for a in found):
        raise cls.wrong_input(f"an array with the different axes {list(given)}", in_spec)
    if not jnp.issubdtype(in_spec.dtype, jnp.floating):
        raise cls.wrong_input("floats", in_spec)
    return tuple(found)


def fit(x: jax.Array, axes: tuple[int, ...], *vectors: Any) -> tuple[bool, str]:
    """Return whether the axes of `x` match the vectors, and the expected shape in words."""
    lengths = [v.shape for v in vectors if v is not None]
    known = dict(zip(axes, lengths[0], strict=True)) if lengths else {}
    expected = ", ".join(str(known.get(a, "_")) for a in range(axes[0], 0))
    fits = bool(jnp.issubdtype(x.dtype, jnp.floating)) and x.ndim >= -axes[0]
    return fits and all(x.shape[a] == n for a, n in known.items()), f"floats [..., {expected}]"
