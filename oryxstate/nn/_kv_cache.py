"""Attention that decodes step by step with cached keys and values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from oryxstate import _explicit, _jax
from oryxstate._module._fields import state
from oryxstate.nn._heads import Heads
from oryxstate.nn._layer import LayerParams
from oryxstate.nn._parts import build
from oryxstate.nn._precision import common_dtype, positive
from oryxstate.nn._template import Template


class CachedAttention(Heads):
    """Causal self-attention that keeps the keys and values of past steps as state.

    A call appends its input, one step or several, and attends from each of these steps to itself
    and all earlier ones. Consecutive calls, in a Python loop or in `lax.scan`, return what one call
    of the original `MultiHeadAttention` returns for the whole sequence. To decode a batch,
    give each example its own cache: `ox.per_example(cached, size)`.

    There is room for `max_length` steps. More steps raise an error where the length is known, and
    return NaN under `jax.jit` and in loops. `cached.replace(length=jnp.array(0, jnp.int32))` starts
    a new sequence, which sees nothing of the old one.

    Attributes:
        query: the projection of queries, as in `MultiHeadAttention`; so are `key`, `value`, `out`.
        keys: the keys of the steps so far, `[max_length, kv_heads, head_features]`.
        values: the values of the steps so far, likewise.
        length: the number of steps so far, int32.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x = jax.random.normal(jax.random.key(1), (5, 8))
        >>> attention = ox.init(nn.MultiHeadAttention.of(2, causal=True))(jax.random.key(0), x)
        >>> cached = attention.cached(max_length=5)
        >>> ys = []
        >>> for step in range(5):
        ...     y, cached = cached.call_and_update(x[step : step + 1])
        ...     ys.append(y)
        >>> bool(jnp.allclose(jnp.concatenate(ys), attention(x), atol=1e-5)), int(cached.length)
        (True, 5)
    """

    keys: Float[Array, "max_length kv_heads head_features"] = state(axes=(None, "kv_heads", None))
    values: Float[Array, "max_length kv_heads head_features"] = state(axes=(None, "kv_heads", None))
    length: Int[Array, ""] = state(axes=())

    @classmethod
    def check(cls, attention: Any, max_length: int) -> None:
        """Check that `attention` is a template of attention and `max_length` is positive."""
        kind = attention.layer if isinstance(attention, Template) else Template
        if not issubclass(kind, Heads) or issubclass(kind, CachedAttention):
            raise TypeError(
                f"{cls.__name__} is made of a template of attention, but got {attention!r}. Give "
                "`MultiHeadAttention.of(heads, causal=True)`, or use `attention.cached(max_length)`"
                " of one that is made."
            )
        positive(cls.__name__, "max_length", max_length)

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, attention: Any, max_length: int
    ) -> LayerParams:
        """Make the attention, with an empty cache.

        Args:
            init_key: a random key.
            in_spec: `[time, features]`.
            attention: the template of a causal `MultiHeadAttention`.
            max_length: how many steps there is room for.
        """
        made, _ = build(attention, init_key, in_spec, "attention")
        dtype = common_dtype(made.key.dtype, in_spec, made.key.kernel)
        cached = made.cached(max_length, dtype)
        return LayerParams(params=cached.params, info=cached.info, state=cached.state)

    def call(self, x: Float[Array, "time features"]) -> Float[Array, "time features"]:
        """Append these steps to the cache, and attend to all steps so far.

        Args:
            x: the next steps of the sequence.
        """
        self._check_sequence(x, self.query, "")
        room, start = self.keys.shape[0], self._start(x)
        positions = start + jnp.arange(len(x), dtype=start.dtype)
        queries, new = self._queries(x, positions), self._keys_and_values(x, positions)
        keys, values = _put(self.keys, new[0], start), _put(self.values, new[1], start)
        end = start + len(x)
        self.assign(keys=keys, values=values, length=end)
        seen = jnp.arange(room, dtype=start.dtype)[None, :] <= positions[:, None]
        dtype = common_dtype(None, queries, *new)  # that of attention without a cache
        y = self._attend(queries, keys.astype(dtype), values.astype(dtype), seen[None])
        return jnp.where(end <= room, y, jnp.nan)

    def _start(self, x: jax.Array) -> jax.Array:
        """Return the number of steps so far; check that `x` fits, where that number is known."""
        start, room = self.length, self.keys.shape[0]
        free = room if isinstance(start, _jax.Tracer) else max(0, room - int(start))
        size = self.query.kernel.shape[0]
        expected = f"[time, {size}] of at most {free} more steps, since max_length is {room}"
        self.check_input(len(x) <= free, expected, x)
        return start


def with_cache(attention: Heads, max_length: int, dtype: Any) -> LayerParams:
    """Return the fields of a `CachedAttention` with these parameters and an empty cache."""
    kernel = attention.key.kernel
    shape = max_length, attention.kv_heads, kernel.shape[1] // attention.kv_heads
    dtype = common_dtype(attention.key.dtype if dtype is None else dtype, kernel)
    shared = {name: getattr(attention, name) for name in ("heads", "kv_heads", "rotary_base")}
    return LayerParams(
        params=attention.params,
        info=shared,
        state={
            "keys": jnp.zeros(shape, dtype),
            "values": jnp.zeros(shape, dtype),  # another array, since the model may be donated
            "length": jnp.array(0, jnp.int32),
        },
    )


def _put(cache: jax.Array, new: jax.Array, start: jax.Array) -> jax.Array:
    zero = jnp.zeros((), start.dtype)
    cache = _explicit.alike(cache, new)
    return lax.dynamic_update_slice(cache, new.astype(cache.dtype), (start, zero, zero))
