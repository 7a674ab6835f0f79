"""Layers that normalize groups of features, each group by its own statistics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param, static
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._layer_norm import affine, fit, standardized
from oryxstate.nn._placed import merge_last, split_last
from oryxstate.nn._precision import not_negative, positive, wide


class _Grouped(Layer):
    """Each group of features is normalized over itself and all axes but the last."""

    scale: Float[Array, " features"] | None = param(axes=("norm",))
    bias: Float[Array, " features"] | None = param(axes=("norm",))
    groups: int = static()
    ndim: int = static()
    epsilon: float = static(default=1e-5)
    dtype: Any = static(default=None)

    def _check_fields(self) -> None:
        positive(type(self).__name__, "groups", self.groups)
        not_negative(type(self).__name__, "epsilon", self.epsilon)

    @classmethod
    def _made(
        cls, in_spec: Any, groups: int, *, vectors: tuple[bool, bool], param_dtype: Any, **info: Any
    ) -> LayerParams:
        if not jnp.issubdtype(in_spec.dtype, jnp.floating):
            raise cls.wrong_input("floats", in_spec)
        if in_spec.shape[-1] == 0 or 0 < in_spec.size <= groups:
            raise cls.wrong_input("several elements to average over in each group", in_spec)
        ones = jnp.ones(in_spec.shape[-1], param_dtype)
        use_scale, use_bias = vectors
        return LayerParams(
            params={"scale": ones if use_scale else None, "bias": 0 * ones if use_bias else None},
            info={"groups": groups, "ndim": in_spec.ndim, **info},
        )

    def call(self, x: Float[Array, "... features"]) -> Float[Array, "... features"]:
        """Normalize the input."""
        self._check(x)
        grouped = split_last(wide(x), self.groups)  # some axes may be of length 0
        axes = *range(x.ndim - 1), x.ndim
        y = merge_last(standardized(grouped, axes, self.epsilon))
        return affine(y, (-1,), self.scale, self.bias, x, self.dtype)

    def _check(self, x: jax.Array) -> None:
        """Check the number of axes too: a batch given by mistake would be averaged over."""
        lengths = [v.shape[0] for v in (self.scale, self.bias) if v is not None]
        features = lengths[0] if lengths else f"a multiple of {self.groups}"
        expected = ", ".join(["_"] * (self.ndim - 1) + [str(features)])
        fits, _ = fit(x, (-1,), self.scale, self.bias)
        fits = fits and x.ndim == self.ndim and x.shape[-1] % self.groups == 0
        self.check_input(fits, f"floats of one example, [{expected}]", x)


class GroupNorm(_Grouped):
    """Normalize groups of neighbouring features, over the group and all axes but the last.

    Scale and bias belong to features. With one group it normalizes over the whole example. Source:
    Wu and He, Group Normalization, 2018.

    Attributes:
        scale: `[features]`, or None.
        bias: `[features]`, or None.
        groups: the number of groups, which divides the number of features.
        ndim: the number of axes of one example.
        epsilon: added to the variance.
        dtype: the dtype of the output; if None, that of the input and parameters together.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x = jnp.array([1.0, 3.0, 10.0, 30.0])
        >>> norm = ox.init(nn.GroupNorm.of(2))(jax.random.key(0), x)
        >>> norm(x).round(3).tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    @classmethod
    def check(cls, groups: int, *, epsilon: float = 1e-5, **options: Any) -> None:
        """Check that the number of groups is positive, and `epsilon` not negative."""
        positive(cls.__name__, "groups", groups)
        not_negative(cls.__name__, "epsilon", epsilon)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        groups: int,
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
            in_spec: of one example, `[..., features]`.
            groups: the number of groups.
            epsilon: added to the variance.
            use_scale: whether there is a scale.
            use_bias: whether there is a bias.
            dtype: of the output.
            param_dtype: the dtype of the parameters.
        """
        if single(cls, in_spec).ndim == 0 or in_spec.shape[-1] % groups:
            raise cls.wrong_input(f"[..., a multiple of {groups}]", in_spec)
        return cls._made(
            in_spec,
            groups,
            vectors=(use_scale, use_bias),
            param_dtype=param_dtype,
            epsilon=epsilon,
            dtype=dtype,
        )


class InstanceNorm(_Grouped):
    """Normalize each feature over all axes but the last: `GroupNorm` with groups of one feature.

    Source: Ulyanov et al., Instance Normalization: The Missing Ingredient for Fast Stylization,
    2016.

    Attributes:
        scale: `[features]`, or None.
        bias: `[features]`, or None.
        groups: the number of features.
        ndim: the number of axes of one example.
        epsilon: added to the variance.
        dtype: the dtype of the output; if None, that of the input and parameters together.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> norm = ox.init(nn.InstanceNorm.of())(jax.random.key(0), x)
        >>> norm(x).round(3).tolist()
        [[-1.0, -1.0], [1.0, 1.0]]
    """

    @classmethod
    def check(cls, *, epsilon: float = 1e-5, **options: Any) -> None:
        """Check that `epsilon` is not negative."""
        not_negative(cls.__name__, "epsilon", epsilon)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        *,
        epsilon: float = 1e-5,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Return scale 1 and bias 0. The arguments are those of `GroupNorm` without `groups`."""
        if single(cls, in_spec).ndim < 2:
            raise cls.wrong_input("[axes..., features] with an axis to average over", in_spec)
        return cls._made(
            in_spec,
            in_spec.shape[-1],
            vectors=(use_scale, use_bias),
            param_dtype=param_dtype,
            epsilon=epsilon,
            dtype=dtype,
        )
