"""Scaled dot-product attention: the softmax-weighted means of values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from oryxstate import _explicit
from oryxstate.nn._placed import grouped_alike, regrouped, where
from oryxstate.nn._precision import inlined, wide_dtype


@inlined
def attend(
    queries: Float[Array, "time heads head_features"],
    keys: Float[Array, "context kv_heads head_features"],
    values: Float[Array, "context kv_heads head_features"],
    mask: Bool[Array, "heads_or_1 time context"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "time heads head_features"]:
    """Return, for each query, the mean of the values that it may see.

        softmax(queries @ keys.T / sqrt(head_features)) @ values

    Logits and softmax are computed at least in float32. A query that may see nothing gets zeros.
    Keys and values that the mask hides from all queries reach neither outputs nor gradients, also
    where they are NaN or infinite, as in padding or in a cache that starts again.

    (`jax.nn.dot_product_attention` computes the softmax in float32 also for float64, gives the mean
    of all values to a query that sees nothing, and multiplies hidden values by 0, so that NaN
    remains.)

    Args:
        queries: one for each step and head, of the dtype of keys and values.
        keys: each of their heads serves `heads / kv_heads` neighbouring heads of queries.
        values: likewise.
        mask: True where a query may see a step, for all heads or each; everywhere if None.
        causal: whether each query sees only its own step and earlier ones.
    """
    (time, heads, features), (context, kv_heads, _) = queries.shape, keys.shape
    if context == 0:
        return jnp.zeros_like(queries)
    seen = None if mask is None else _grouped(mask, kv_heads)
    if seen is not None:
        by_any = jnp.expand_dims(seen.any((1, 2)).T, -1)  # [context, kv_heads or 1, 1]
        keys, values = (where(by_any, x, jnp.zeros_like(x)) for x in (keys, values))
    if causal:
        past = jnp.tri(time, context, dtype=bool)[None, :, None]
        seen = past if seen is None else seen & past
    queries, keys, values = grouped_alike(queries, keys, values)
    groups = time, kv_heads, heads // kv_heads, features
    *by_head, last = _explicit.entries(queries)
    queries = regrouped(queries, groups, (*by_head, (), last))
    exact = wide_dtype(queries.dtype)
    products = ((3,), (2,)), ((1,), (1,))  # over features, for each head of keys
    logits = lax.dot_general(queries, keys, products, preferred_element_type=exact)
    weights = _softmax(logits * features**-0.5, seen).astype(values.dtype)
    means = lax.dot_general(weights, values, (((3,), (0,)), ((0,), (1,))))
    means = means.swapaxes(0, 1)
    return regrouped(means, (time, heads, features), (*_explicit.entries(means)[:2], ()))


def _grouped(mask: jax.Array, kv_heads: int) -> jax.Array:
    """Reshape a mask to `[kv_heads, time, heads / kv_heads, context]`, with lengths 1 for all."""
    heads = mask.shape[0]
    groups = (1, 1) if heads == 1 else (kv_heads, heads // kv_heads)
    mask, shape = _explicit.whole(mask), (*groups, *mask.shape[1:])
    return regrouped(mask, shape, ((),) * 4).swapaxes(1, 2)


def _softmax(logits: jax.Array, seen: jax.Array | None) -> jax.Array:
    """Return weights that are exactly 0 where nothing is seen."""
    if seen is None:
        return jax.nn.softmax(logits)
    lowest = 0.7 * float(jnp.finfo(logits.dtype).min)  # finite: differences stay numbers
    weights = jax.nn.softmax(where(seen, logits, lowest))
    return where(seen, weights, 0)
