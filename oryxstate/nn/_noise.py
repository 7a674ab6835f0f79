"""Which layers are random while a model is trained?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._precision import fraction, switched


class Dropout(Layer):
    """Zero each element with probability `rate`, and divide the others by `1 - rate`.

    Only while training; `rng` may be left out otherwise. Source: Srivastava et al., Dropout: A
    Simple Way to Prevent Neural Networks from Overfitting, 2014.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> dropout, x = nn.Dropout(0.5), jnp.ones(4)
        >>> set(dropout(x, training=True, rng=jax.random.key(0)).tolist()) <= {0.0, 2.0}
        True
        >>> dropout(x, training=False)
        Array([1., 1., 1., 1.], dtype=float32)
    """

    rate: float = static()

    @classmethod
    def check(cls, rate: float) -> None:
        """The rate is a probability below 1."""
        fraction(cls.__name__, "rate", rate)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, rate: float) -> LayerParams:
        """Nothing to learn."""
        return LayerParams(info={"rate": rate})

    def call(
        self, x: Float[Array, "..."], *, training: bool, rng: Any = None
    ) -> Float[Array, "..."]:
        """The input, with some elements zero while training."""
        if not switched(training, "Dropout") or self.rate == 0:
            return x
        keep = jax.random.bernoulli(self.needed("rng", rng), 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))
