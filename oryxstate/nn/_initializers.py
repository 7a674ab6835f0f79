"""What are parameters drawn from, unless a layer is told otherwise?"""

from __future__ import annotations

from typing import Any, Protocol

import jax


class Initializer(Protocol):
    """What draws a parameter, as in `jax.nn.initializers`."""

    def __call__(self, key: Any, shape: Any, dtype: Any, /) -> jax.Array:
        """An array of this shape and dtype."""
        ...


zeros: Initializer = jax.nn.initializers.zeros
glorot: Initializer = jax.nn.initializers.glorot_uniform()
orthogonal: Initializer = jax.nn.initializers.orthogonal()
# Of convolutions: its variance counts inputs alone; that of `glorot` would count the outputs of all
# groups, which is far too small where there are many groups.
lecun: Initializer = jax.nn.initializers.lecun_normal()
