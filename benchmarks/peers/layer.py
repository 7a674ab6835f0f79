"""The layer that each library implements, and what a library declares to be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rows import SCALE, Row

Step = Callable[[jax.Array], tuple[Any, Any, Any]]  # input -> output, total and count after it
Start = Callable[[Row, Callable, bool], Step]  # from the row, its program, whether it is jitted


class Column(NamedTuple):
    """A library.

    Attributes:
        packages: whose versions the table names.
        start: makes the layer.
        native: the ways to write a row in JAX's transformations, by name; empty if there is none.
        own: the rows in the library's own transformations.
        start_own: makes the layer for these, if otherwise.
        word: what a cell says where a native program is right.
        own_word: what a cell says where only an own program is right.
    """

    packages: tuple[str, ...]
    start: Start
    native: Callable[[str], dict[str, Callable]]
    own: dict[str, Callable] = {}  # noqa: RUF012  (a NamedTuple's default, never written)
    start_own: Start | None = None
    word: str = "right"
    own_word: str = "own transform"


def updated(total: jax.Array, count: jax.Array, h: jax.Array, through: bool) -> tuple:
    """What the layer writes."""
    sin = jnp.sin(h) if through else lax.stop_gradient(jnp.sin(h))
    return 0.5 * total + sin, count + 1


def output(scale: jax.Array, total: jax.Array, h: jax.Array) -> jax.Array:
    """What the layer returns once `total` is written."""
    return h * (scale + jnp.cos(total))


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:2]), "d")


def arrays(row: Row) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scale, total and count before the first call, on the devices that use them."""
    total = jnp.asarray(row.start.total, jnp.float32)
    made = jnp.full_like(total, SCALE), total, jnp.asarray(row.start.count, jnp.int32)
    if row.devices == 1:
        return made
    return jax.device_put(made, NamedSharding(mesh(), PartitionSpec()))


def zero_tangents(tree: Any) -> Any:
    """Zeros in the tangent types of the leaves: that of an integer is `float0`."""

    def zero(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.zeros_like(x) if floating else np.zeros(x.shape, jax.dtypes.float0)

    return jax.tree.map(zero, tree)
