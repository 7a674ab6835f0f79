"""The common parts of multi-head attention: projections, positions, the weighted mean."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from oryxstate._module._fields import static
from oryxstate._tree import ArraySpec
from oryxstate.nn._attend import attend
from oryxstate.nn._embedding import rotary
from oryxstate.nn._layer import Layer
from oryxstate.nn._linear import Dense
from oryxstate.nn._parts import build
from oryxstate.nn._placed import merge_last, split_last
from oryxstate.nn._precision import above_zero, computing, positive


class Heads(Layer):
    """Attention in several heads, with dense projections of queries, keys, values and output."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    heads: int = static()
    kv_heads: int = static()
    rotary_base: float | None = static()

    def _check_fields(self) -> None:
        layer, kernel = type(self).__name__, self.query.kernel
        check_heads(layer, self.heads, self.kv_heads, self.rotary_base)
        if kernel is not None and kernel.shape[-1] % self.heads:  # None in half of a partition
            raise ValueError(
                f"{layer}: `heads` must divide the features of `query`, {kernel.shape[-1]}, got "
                f"{self.heads}."
            )

    def _queries(
        self, x: Float[Array, "time in"], positions: Int[Array, " time"] | None
    ) -> Float[Array, "time heads head_features"]:
        return self._positioned(_split(self.query(x), self.heads), positions)

    def _keys_and_values(
        self, x: Float[Array, "time in"], positions: Int[Array, " time"] | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return keys and values, each `[time, kv_heads, head_features]`."""
        keys, values = (_split(p(x), self.kv_heads) for p in (self.key, self.value))
        return self._positioned(keys, positions), values

    def _positioned(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if self.rotary_base is None or positions is None:
            return x
        return rotary(x, positions, self.rotary_base)

    def _attend(
        self,
        queries: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        mask: Bool[Array, "heads_or_1 time context"] | None = None,
        *,
        causal: bool = False,
    ) -> Float[Array, "time out"]:
        y = attend(*computing(None, queries, keys, values), mask, causal=causal)
        return self.out(merge_last(y))

    def _check_sequence(self, x: Any, dense: Dense, what: str) -> None:
        size = dense.kernel.shape[0]
        fits = jnp.ndim(x) == 2 and x.shape[1] == size and jnp.issubdtype(x.dtype, jnp.floating)
        self.check_input(fits, f"{what}[time, {size}]", x)


def _split(x: jax.Array, heads: int) -> jax.Array:
    """Reshape `[time, heads * head_features]`."""
    return split_last(x, heads)


def check_heads(layer: str, heads: int, kv_heads: int, rotary_base: float | None) -> None:
    """Raise for a configuration that no attention has.

    Raises:
        ValueError: naming the layer and the value.
    """
    positive(layer, "heads", heads)
    positive(layer, "kv_heads", kv_heads)
    if heads % kv_heads:
        raise ValueError(
            f"{layer}: `kv_heads` must divide the number of heads, {heads}, got {kv_heads}."
        )
    if rotary_base is not None:
        above_zero(layer, "rotary_base", rotary_base)


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
    shared = context, heads[1] * head_features, ("embed", "kv_heads")
    parts = {
        "query": (x, mixed.shape[1], ("embed", "heads")),
        "key": shared,
        "value": shared,
        "out": (mixed, x.shape[1], ("heads", "embed")),
    }
    return {
        name: build(Dense.of(features, axes=axes, **options), init_key, spec, name)[0]
        for init_key, (name, (spec, features, axes)) in zip(keys, parts.items(), strict=True)
    }
