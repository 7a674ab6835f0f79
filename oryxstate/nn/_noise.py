"""Layers that are random during training: dropout and noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams, single, spec_in
from oryxstate.nn._placed import where
from oryxstate.nn._precision import fraction, not_negative

FLOATS = "floating-point numbers"


class Dropout(Layer):
    """Zero each element with probability `rate`, and divide the others by `1 - rate`.

    Active only during training; `rng` may be left out otherwise. Source: Srivastava et al.,
    Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> dropout, x = nn.Dropout(0.5), jnp.ones(4)
        >>> set(dropout(x, training=True, rng=jax.random.key(0)).tolist()) <= {0.0, 2.0}
        True
        >>> dropout(x, training=False)
        Array([1., 1., 1., 1.], dtype=float32)
    """

    rate: float = static()

    def _check_fields(self) -> None:
        self.check(self.rate)

    @classmethod
    def check(cls, rate: float) -> None:
        """Check that the rate is a probability below 1."""
        fraction(cls.__name__, "rate", rate)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, rate: float) -> LayerParams:
        """Return the configuration; the layer has no parameters."""
        if not jnp.issubdtype(single(cls, in_spec).dtype, jnp.inexact):
            raise cls.wrong_input(FLOATS, in_spec)
        return LayerParams(info={"rate": rate})

    def _out_spec(self, in_spec: Any) -> Any:
        return spec_in(None, in_spec.shape, in_spec)

    def call(
        self, x: Float[Array, "..."], *, training: bool, rng: Any = None
    ) -> Float[Array, "..."]:
        """Zero some elements of the input during training."""
        self.check_input(jnp.issubdtype(jnp.result_type(x), jnp.inexact), FLOATS, x)
        if not self.trains(training) or self.rate == 0:
            return x
        kept = 1 - float(self.rate)
        together = self._together(x.shape)
        keep = jax.random.bernoulli(self.needed("rng", rng), kept, together)
        return where(keep, x / kept, jnp.zeros_like(x))

    def _together(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the mask."""
        return shape


class DropPath(Dropout):
    """Zero the whole input with probability `rate`, and divide it by `1 - rate` otherwise.

    Use it in the body of a residual connection, `Residual.of(body >> DropPath.of(0.1))`: each
    example then skips the body at random (stochastic depth). Active only during training; `rng` may
    be left out otherwise. Source: Huang et al., Deep Networks with Stochastic Depth, 2016, and
    Larsson et al., FractalNet, 2016.

    Attributes:
        rate: the probability, below 1.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> path, x = nn.DropPath(0.5), jnp.ones(3)
        >>> path(x, training=True, rng=jax.random.key(0)).tolist() in ([0.0] * 3, [2.0] * 3)
        True
    """

    def _together(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return ()


class GaussianNoise(Layer):
    """`y = x + stddev * noise`, with standard normal noise for each element.

    Active only during training; `rng` may be left out otherwise. Source: Bishop, Training with
    Noise is Equivalent to Tikhonov Regularization, 1995.

    Attributes:
        stddev: the standard deviation of the noise.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> noise, x = nn.GaussianNoise(0.1), jnp.ones(3)
        >>> bool((noise(x, training=True, rng=jax.random.key(0)) != x).all())
        True
        >>> noise(x, training=False).tolist()
        [1.0, 1.0, 1.0]
    """

    stddev: float = static()

    def _check_fields(self) -> None:
        self.check(self.stddev)

    @classmethod
    def check(cls, stddev: float) -> None:
        """Check that the standard deviation is not negative."""
        not_negative(cls.__name__, "stddev", stddev)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, stddev: float) -> LayerParams:
        """Return the configuration; the layer has no parameters."""
        if not jnp.issubdtype(single(cls, in_spec).dtype, jnp.floating):
            raise cls.wrong_input(FLOATS, in_spec)
        return LayerParams(info={"stddev": stddev})

    def _out_spec(self, in_spec: Any) -> Any:
        return spec_in(None, in_spec.shape, in_spec)

    def call(
        self, x: Float[Array, "..."], *, training: bool, rng: Any = None
    ) -> Float[Array, "..."]:
        """Add noise to the input during training."""
        self.check_input(jnp.issubdtype(jnp.result_type(x), jnp.floating), FLOATS, x)
        if not self.trains(training) or self.stddev == 0:
            return x
        noise = jax.random.normal(self.needed("rng", rng), x.shape, x.dtype)
        return x + float(self.stddev) * noise
