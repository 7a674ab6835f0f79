"""The default initializers of parameters."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Initializer(Protocol):
    """A function that draws a parameter, like those of `jax.nn.initializers`."""

    def __call__(self, key: Any, shape: Any, dtype: Any, /) -> jax.Array:
        """Draw an array of this shape and dtype."""
        ...


zeros: Initializer = jax.nn.initializers.zeros
glorot: Initializer = jax.nn.initializers.glorot_uniform()
orthogonal: Initializer = jax.nn.initializers.orthogonal()
# For convolutions. Its variance depends on the fan-in alone; that of `glorot` also counts the
# outputs of all groups, and is far too small with many groups.
lecun: Initializer = jax.nn.initializers.lecun_normal()


def drawn(initializer: Initializer, key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draw a parameter; one without elements, of an input without features, is not drawn.

    JAX 0.10 divides by the fan-in, which is 0.
    """
    return jnp.zeros(shape, dtype) if 0 in shape else initializer(key, shape, dtype)
