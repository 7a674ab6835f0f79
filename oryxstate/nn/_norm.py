"""Batch normalization."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from oryxstate._batched._primitive import not_gathered
from oryxstate._errors import EffectError
from oryxstate._module import _live
from oryxstate._module._fields import param, state, static
from oryxstate._tree import ArraySpec
from oryxstate.nn._layer import Layer, LayerParams, single, spec_in
from oryxstate.nn._precision import (
    blended,
    common_dtype,
    fraction,
    inlined,
    last,
    not_negative,
    wide,
)


class BatchNorm(Layer):
    """Normalize each feature over the batch and over all axes but that of the features.

    It is called on one example. Under `jax.vmap`, of the layer or of its model, it sees the whole
    batch, through any number of `vmap`s. During training it normalizes with the statistics of the
    batch and updates the running ones,

        mean <- momentum * mean + (1 - momentum) * batch mean

    and the variance likewise (the biased variance, in two passes). Otherwise it uses the running
    ones. The statistics are kept at least in float32, and written with `lax.stop_gradient`. A batch
    without examples or with an empty spatial axis has no statistics and leaves them. (In PyTorch
    `momentum` is `1 - momentum`, the running variance is unbiased, and `epsilon` is called `eps`.)
    The features are along the last axis; for channels first, as in PyTorch, give `axis=0`.
    Source: Ioffe and Szegedy, Batch Normalization, 2015.

    Attributes:
        scale: `[features]`, or None.
        bias: `[features]`, or None.
        mean: the running mean, `[features]`, float32 or wider.
        variance: the running variance, `[features]`, likewise.
        momentum: the weight of the old statistics.
        epsilon: added to the variance.
        axis_name: named axes of other `vmap`s or of devices (`shard_map`) to average over too.
        axis: the axis of the features in one example.
        dtype: the dtype of the output; if None, that of the input and parameters together.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> xs = jnp.array([[1.0], [3.0]])
        >>> norm = ox.init(nn.BatchNorm.of(momentum=0.5))(jax.random.key(0), xs[0])
        >>> def train(norm, x):
        ...     return norm.call_and_update(x, training=True)
        >>> ys, norm = jax.vmap(train, (None, 0), (0, None))(norm, xs)
        >>> ys.round(2).ravel().tolist(), float(norm.mean[0])
        ([-1.0, 1.0], 1.0)
    """

    scale: Float[Array, " features"] | None = param(axes=("norm",))
    bias: Float[Array, " features"] | None = param(axes=("norm",))
    mean: Float[Array, " features"] = state(axes=("norm",))
    variance: Float[Array, " features"] = state(axes=("norm",))
    momentum: float = static(default=0.99)
    epsilon: float = static(default=1e-5)
    axis_name: tuple[str, ...] = static(default=())
    dtype: Any = static(default=None)
    axis: int = static(default=-1)

    def _check_fields(self) -> None:
        self.check(momentum=self.momentum, epsilon=self.epsilon, axis=self.axis)

    @classmethod
    def check(
        cls, *, momentum: float = 0.99, epsilon: float = 1e-5, axis: int = -1, **options: Any
    ) -> None:
        """Check that momentum is in [0, 1), `epsilon` not negative, and `axis` an integer."""
        fraction(cls.__name__, "momentum", momentum)
        not_negative(cls.__name__, "epsilon", epsilon)
        if not isinstance(axis, int) or isinstance(axis, bool):
            raise ValueError(
                f"{cls.__name__}: `axis` is the axis of the features in one example, an integer "
                f"such as 0 for channels first, got {axis!r}. It averages over all others."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        use_scale: bool = True,
        use_bias: bool = True,
        axis_name: str | tuple[str, ...] = (),
        axis: int = -1,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Return scale 1, bias 0, running mean 0 and running variance 1.

        Args:
            init_key: not used.
            in_spec: of one example, `[..., features]`, or with the features along `axis`.
            momentum: the weight of the old statistics, in [0, 1).
            epsilon: added to the variance.
            use_scale: whether there is a scale.
            use_bias: whether there is a bias.
            axis_name: named axes to average over too.
            axis: the axis of the features in one example.
            dtype: of the output.
            param_dtype: the dtype of the parameters; the statistics are float32 if it is narrower.
        """
        if not _has_axis(single(cls, in_spec), axis):
            expected = "[..., features]" if axis == -1 else f"features along axis {axis}"
            raise cls.wrong_input(expected, in_spec)
        if not jnp.issubdtype(in_spec.dtype, jnp.floating):
            raise cls.wrong_input("floats", in_spec)
        features = in_spec.shape[axis], param_dtype
        names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
        return LayerParams(
            params={
                "scale": jnp.ones(*features) if use_scale else None,
                "bias": jnp.zeros(*features) if use_bias else None,
            },
            info={
                "momentum": momentum,
                "epsilon": epsilon,
                "axis_name": names,
                "dtype": dtype,
                "axis": axis,
            },
            state={"mean": wide(jnp.zeros(*features)), "variance": wide(jnp.ones(*features))},
        )

    def _out_spec(self, in_spec: Any) -> Any:
        return spec_in(self.dtype, in_spec.shape, in_spec, self.scale, self.bias)

    def call(self, x: Float[Array, "..."], *, training: bool) -> Float[Array, "..."]:
        """Normalize one example by the running statistics."""
        self._check_example(x)
        if self.trains(training):
            raise EffectError(alone("BatchNorm", _live.path_of(self)))
        axis = _from_end(self.axis, x.ndim)
        return _moved(self._normalized(_moved(x, axis, -1)), -1, axis)

    def call_batched(
        self, xs: Float[Array, "batch ..."], *, training: bool
    ) -> Float[Array, "batch ..."]:
        """Normalize all examples, by their own statistics during training."""
        one = ArraySpec(xs.shape[1:], xs.dtype)
        self._check_example(one)
        axis = _from_end(self.axis, one.ndim)
        xs = _moved(xs, axis, -1)
        if not self.trains(training) or 0 in xs.shape[:-1]:
            return _moved(self._normalized(xs), -1, axis)
        y, mean, variance = _normalize_batch(
            xs,
            self.mean,
            self.variance,
            self.scale,
            self.bias,
            momentum=self.momentum,
            epsilon=self.epsilon,
            names=not_gathered(self.axis_name),
            dtype=self.dtype,
        )
        self.assign(mean=mean, variance=variance)
        return _moved(y, -1, axis)

    def _check_example(self, x: Any) -> None:
        size, one = self.mean.shape[0], ArraySpec(jnp.shape(x), x.dtype)
        fits = _has_axis(one, self.axis) and one.shape[self.axis] == size
        fits = fits and jnp.issubdtype(x.dtype, jnp.floating)
        along = f"{size} floats along axis {self.axis}"
        self.check_input(fits, f"floats [..., {size}]" if self.axis == -1 else along, x)

    def _normalized(self, x: jax.Array) -> jax.Array:
        return _normalize(
            x,
            self.mean,
            self.variance,
            self.scale,
            self.bias,
            epsilon=self.epsilon,
            dtype=self.dtype,
        )


@inlined
def _normalize(x, mean, variance, scale, bias, *, epsilon, dtype):
    centered = wide(x) - last(wide(mean), x)
    dtype = common_dtype(dtype, x, scale, bias)
    return _scale(centered, variance, scale, bias, epsilon).astype(dtype)


@inlined
def _normalize_batch(xs, mean, variance, scale, bias, *, momentum, epsilon, names, dtype):
    """Return `(normalized, running mean, running variance)` by the statistics of the batch."""

    def average(values):
        own = values.mean(range(values.ndim - 1))
        return lax.pmean(own, names) if names else own

    def mixed(old, new):
        exact = wide(old)
        new = lax.stop_gradient(new).astype(exact.dtype)
        return blended(exact, new, momentum).astype(old.dtype)

    batch_mean = average(wide(xs))
    centered = wide(xs) - last(batch_mean, xs)
    batch_variance = average(jnp.square(centered))
    y = _scale(centered, batch_variance, scale, bias, epsilon)
    y = y.astype(common_dtype(dtype, xs, scale, bias))
    return y, mixed(mean, batch_mean), mixed(variance, batch_variance)


def _scale(centered, variance, scale, bias, epsilon):
    factor = lax.rsqrt(wide(variance) + epsilon)
    if scale is not None:
        factor = factor * wide(scale)
    y = centered * last(factor, centered)
    return y if bias is None else y + last(wide(bias), centered)


def _has_axis(x: Any, axis: int) -> bool:
    return -x.ndim <= axis < x.ndim


def _from_end(axis: int, ndim: int) -> int:
    return axis - ndim if axis >= 0 else axis


def _moved(x: jax.Array, source: int, destination: int) -> jax.Array:
    return x if source == destination else jnp.moveaxis(x, source, destination)


def alone(layer: str, path: str) -> str:
    """Format the error for one example without the others."""
    where = f" at '{path}'" if path else ""
    return (
        f"{layer}{where} is training on one example alone, which has no statistics. Call the model "
        "on the batch, `ox.batch_call_and_update(model, xs, training=True)`, and differentiate "
        "around that call: `jax.grad` of the mean over the batch, not in a `jax.vmap`."
    )
