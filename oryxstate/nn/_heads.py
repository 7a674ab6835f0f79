"""The common parts of multi-head attention: projections, positions, the weighted mean."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from oryxstate._module._fields import static
from oryxstate._tree import ArraySpec
from oryxstate.nn._embedding import rotary
from oryxstate.nn._layer import Layer
from oryxstate.nn._linear import Dense
from oryxstate.nn._parts import build


class Heads(Layer):
    """Attention in several heads, with dense projections of queries, keys, values and output."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    heads: int = static()
    kv_heads: int = static()
    rotary_base: float | None = static()

    def _queries(
        self, x: Float[Array, "time in"], positions: Int[Array, " time"] | None
    ) -> Float[Array, "time heads head_features"]:
        return self._positioned(self.query(x).reshape(len(x), self.heads, -1), positions)

    def _keys_and_values(
        self, x: Float[Array, "time in"], positions: Int[Array, " time"] | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return keys and values, each `[time, kv_heads, head_features]`."""
        keys, values = (p(x).reshape(len(x), self.kv_heads, -1) for p in (self.key, self.value))
        return self._positioned(keys, positions), values

    def _positioned(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if self.rotary_base is None or positions is None:
            return x
        return rotary(x, positions, self.rotary_base)

    def _attend(
        self, queries: jax.Array, keys: jax.Array, values: jax.Array, **options: Any
    ) -> Float[Array, "time out"]:
        with jax.numpy_dtype_promotion("standard"):  # JAX's own code promotes bfloat16
            y = jax.nn.dot_product_attention(queries, keys, values, **options)
        return self.out(y.reshape(len(y), -1))

    def _check_sequence(self, x: Any, dense: Dense, what: str) -> None:
        size = dense.kernel.shape[0]
        fits = jnp.ndim(x) == 2 and x.shape[1] == size and jnp.issubdtype(x.dtype, jnp.floating)
        self.check_input(fits, f"{what}[time, {size}]", x)


def projections(
    init_key: Any,
    specs: tuple[ArraySpec, ArraySpec],
    heads: tuple[int, int],
    head_features: int,
    **options: Any,
) -> dict[str, Any]:
    """Make the dense layers of attention.

    Args:
        init_key: a random key.
        specs: of the input and of what it attends to, each `[time, in]`.
        heads: how many there are, of queries and of keys and values.
        head_features: the length of each query, key and value.
        **options: of the dense layers.
    """
    keys = jax.random.split(init_key, 4)
    x, context = specs
    mixed = ArraySpec((x.shape[0], heads[0] * head_features), x.dtype)
    parts = {
        "query": (x, mixed.shape[1]),
        "key": (context, heads[1] * head_features),
        "value": (context, heads[1] * head_features),
        "out": (mixed, x.shape[1]),
    }
    return {
        name: build(Dense.of(features, **options), init_key, spec, name)[0]
        for init_key, (name, (spec, features)) in zip(keys, parts.items(), strict=True)
    }
