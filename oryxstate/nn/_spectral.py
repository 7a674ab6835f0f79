"""Layers that normalize the kernel of another layer before each use."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from oryxstate import _explicit
from oryxstate._errors import InputError
from oryxstate._module import _live
from oryxstate._module._fields import param, state, static
from oryxstate._tree import make_array_spec
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._placed import reshaped, used
from oryxstate.nn._precision import positive, wide
from oryxstate.nn._template import Template

FIRST_ITERATIONS = 15  # as in PyTorch and Equinox, so that an untrained layer is normalized too


class _Reparametrized(Layer):
    """A layer that is called with another kernel than the stored one."""

    layer: Any
    field: str = static()

    def _check_fields(self) -> None:
        self.check(self.layer, self.field)

    @classmethod
    def check(cls, inner: Any, field: str = "kernel", **options: Any) -> None:
        """Check that the inner layer has such a field."""
        check_parts(cls.__name__, (inner,))
        kind = inner.layer if isinstance(inner, Template) else type(inner)
        layout = getattr(kind, "__layout__", None)
        params = [n for n, i in layout.infos.items() if i.is_param] if layout else []
        if field not in params:
            raise TypeError(
                f"{cls.__name__} needs a layer with a parameter `{field}`, but {kind.__name__} "
                f"has these: {', '.join(params) or 'none'}. Wrap the layer that holds it, or name "
                "another one with `field`."
            )

    @classmethod
    def _inside(cls, init_key: Any, in_spec: Any, inner: Any, field: str) -> tuple[Any, ...]:
        """Make the inner layer; return it with its kernel as a matrix and its output spec."""
        layer, infer = build(inner, init_key, in_spec, "layer")
        kernel = getattr(layer, field)
        spec = make_array_spec(kernel)
        if spec is None or spec.ndim < 2 or not jnp.issubdtype(spec.dtype, jnp.floating):
            raise ValueError(
                f"{cls.__name__}: `{field}` must be an array of floats with at least two axes, of "
                f"which the last one is that of the output's features, but it is {spec}."
            )
        return layer, _matrix(kernel), infer()

    def _call_with(self, kernel: jax.Array, inputs: tuple) -> Any:
        """Call the layer with this kernel, in the dtype of its own kernel."""
        kernel = kernel.astype(getattr(self.layer, self.field).dtype)
        layer = self.layer.replace(**{self.field: kernel})
        try:
            return layer(*inputs)
        except InputError as error:
            if error.parts[-1]:
                raise
            path = f"{_live.path_of(self)}.layer".removeprefix(".")  # a copy has no place
            raise error.inside(path) from None


def _matrix(kernel: jax.Array) -> jax.Array:
    """Reshape a kernel to `[inputs, features]`, at least in float32."""
    *axes, features = kernel.shape
    return reshaped(wide(kernel), (math.prod(axes), features))


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return each column divided by its largest absolute value, and these values.

    Squares of the quotients neither underflow nor overflow. A column of zeros is not divided.
    """
    largest = lax.stop_gradient(jnp.abs(x).max(0, keepdims=True, initial=0))
    largest = jnp.where(largest == 0, jnp.ones_like(largest), largest)
    return x / largest, largest


class SpectralNorm(_Reparametrized):
    """A layer whose kernel `W` is divided by its largest singular value, `W / (v^T W u)`.

    `W` is reshaped to a matrix, `[all other axes, features]`. The singular vectors are approximated
    by power iteration, only during training and before the kernel is used,

        v <- W u / |W u|        u <- W^T v / |W^T v|

    with `lax.stop_gradient` of `W`. Otherwise they do not change; nor do they for a kernel that is
    zero, NaN or infinite. A kernel of zeros is not divided. Source: Miyato et al., Spectral
    Normalization for Generative Adversarial Networks, 2018.

    Attributes:
        layer: the layer, with the learned kernel before division.
        u: the right singular vector, `[features]`.
        v: the left singular vector, `[inputs]`.
        field: the name of the kernel.
        iterations: power iterations in each call during training.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.SpectralNorm.of(nn.Dense.of(4)))(jax.random.key(0), jnp.ones(3))
        >>> kernel = jax.vmap(lambda x: model(x, training=False))(jnp.eye(3))
        >>> bool(jnp.abs(jnp.linalg.norm(kernel, 2) - 1) < 0.05)
        True
        >>> y, model = model.call_and_update(jnp.ones(3), training=True)
    """

    u: Float[Array, " features"] = state(axes=(None,))
    v: Float[Array, " inputs"] = state(axes=(None,))
    iterations: int = static(default=1)

    def _check_fields(self) -> None:
        self.check(self.layer, self.field, iterations=self.iterations)

    @classmethod
    def check(
        cls, inner: Any, field: str = "kernel", *, iterations: int = 1, **options: Any
    ) -> None:
        """Check that the inner layer has such a field and `iterations` is positive."""
        super().check(inner, field)
        positive(cls.__name__, "iterations", iterations)

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, inner: Any, field: str = "kernel", *, iterations: int = 1
    ) -> LayerParams:
        """Make the inner layer, and draw the vectors and iterate them.

        Args:
            init_key: a random key.
            in_spec: of the inner layer's input.
            inner: a layer or a template.
            field: the name of its kernel.
            iterations: power iterations in each call during training.
        """
        keys = jax.random.split(init_key, 3)
        layer, matrix, out_spec = cls._inside(keys[0], in_spec, inner, field)
        u, v = (
            _unit(jax.random.normal(key, (size,), matrix.dtype), jnp.zeros(size, matrix.dtype))
            for key, size in zip(keys[1:], matrix.shape[::-1], strict=True)
        )
        u, v = _iterated(matrix, u, v, FIRST_ITERATIONS)
        return LayerParams(
            params={"layer": layer},
            state={"u": u, "v": v},
            info={"field": field, "iterations": iterations},
            out_spec=out_spec,
        )

    def call(self, *inputs: Any, training: bool) -> Any:
        """Return the output of the layer with the normalized kernel."""
        kernel = _explicit.whole(used(getattr(self.layer, self.field)))
        matrix = _matrix(kernel)
        u, v = (_explicit.whole(used(x)).astype(matrix.dtype) for x in (self.u, self.v))
        if self.trains(training):
            u, v = _iterated(lax.stop_gradient(matrix), u, v, self.iterations)
            self.assign(u=u.astype(self.u.dtype), v=v.astype(self.v.dtype))
        sigma = v @ matrix @ u
        normal = wide(kernel) / jnp.where(sigma == 0, 1, sigma)
        return self._call_with(normal.astype(kernel.dtype), inputs)


def _iterated(matrix: jax.Array, u: jax.Array, v: jax.Array, count: int) -> tuple[Any, Any]:
    """Return the vectors after some power iterations."""
    for _ in range(count):
        v = _unit(matrix @ u, v)
        u = _unit(matrix.T @ v, u)
    return u, v


def _unit(x: jax.Array, otherwise: jax.Array) -> jax.Array:
    """Scale to length 1. A vector of zeros, or with NaN, has no direction: return `otherwise`."""
    scaled, _ = _scaled(jnp.expand_dims(x, 1))
    scaled = scaled.squeeze(1)
    norm = jnp.linalg.norm(scaled)
    directed = (norm > 0) & jnp.isfinite(norm)
    return jnp.where(directed, scaled / jnp.where(directed, norm, 1), otherwise)


class WeightNorm(_Reparametrized):
    """A layer whose kernel is `scale * v / |v|`, with a length and a direction for each feature.

    The norm runs over all axes but the last. `v` is the layer's own kernel and `scale` starts as
    its norm, so that the layer starts with the kernel that it was made with. Source: Salimans and
    Kingma, Weight Normalization, 2016, where `scale` is g.

    Attributes:
        layer: the layer, whose kernel is `v`.
        scale: `[features]`.
        field: the name of the kernel.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.WeightNorm.of(nn.Dense.of(4)))(jax.random.key(0), jnp.ones(3))
        >>> bool(jnp.allclose(model(jnp.ones(3)), model.layer(jnp.ones(3)), atol=1e-6))
        True
    """

    scale: Float[Array, " features"] = param(axes=("norm",))

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, inner: Any, field: str = "kernel"
    ) -> LayerParams:
        """Make the inner layer, and compute the norm of its kernel.

        Args:
            init_key: a random key.
            in_spec: of the inner layer's input.
            inner: a layer or a template.
            field: the name of its kernel.
        """
        layer, matrix, out_spec = cls._inside(init_key, in_spec, inner, field)
        scaled, largest = _scaled(matrix)
        scale = jnp.linalg.norm(scaled, axis=0) * largest.squeeze(0)
        scale = scale.astype(getattr(layer, field).dtype)
        return LayerParams(
            params={"layer": layer, "scale": scale}, info={"field": field}, out_spec=out_spec
        )

    def call(self, *inputs: Any) -> Any:
        """Return the output of the layer with this kernel."""
        kernel = _explicit.whole(used(getattr(self.layer, self.field)))
        matrix = _matrix(kernel)
        matrix, _ = _scaled(matrix)
        squares = jnp.square(matrix).sum(0, keepdims=True)
        direction = matrix * lax.rsqrt(jnp.where(squares == 0, 1, squares))
        scaled = direction * jnp.expand_dims(self.scale.astype(direction.dtype), 0)
        return self._call_with(reshaped(scaled, kernel.shape), inputs)
