"""Random keys that differ for each example of a `vmap`, from one key for all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from oryxstate import _explicit, _jax, _shard_maps, _tangents

example_key_p = _jax.Primitive("example_key")


def for_each_example(key: Any, mapped: Any) -> Any:
    """Make a random key for each example of every `vmap` that maps any array in `mapped`.

    Where `mapped` differs by device in a `shard_map`, so does the key. A key that is itself mapped
    is left as it is: each example has one.

    Args:
        key: a key, or the uint32 data of one.
        mapped: a pytree; its arrays tell which `vmap`s count.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import _example_keys
        >>> key, xs = jax.random.key(0), jnp.zeros(3)
        >>> keys = jax.vmap(lambda x: _example_keys.for_each_example(key, x))(xs)
        >>> len({int(jax.random.bits(k)) for k in keys})
        3
    """
    ties = [x for x in jax.tree.leaves(mapped) if isinstance(x, _jax.Tracer)]
    if not ties:
        return key
    axes = frozenset().union(*(_shard_maps.varying_axes(jax.typeof(x)) for x in ties))
    for axis in sorted(axes - _shard_maps.varying_axes(jax.typeof(key))):
        key = jax.random.fold_in(key, lax.axis_index(axis))
    return example_key_p.bind(key, *ties)[0]


def _batch(_, operands, dims, **params):
    (key, *ties), (dim, *_) = operands, dims
    if dim is None:
        (size,) = {jnp.shape(x)[d] for x, d in zip(ties, dims[1:], strict=True) if d is not None}
        numbers = _explicit.along_first(jnp.arange(size), ties, dims[1:])
        key, dim = jax.vmap(_folded, (None, 0))(key, numbers), 0
    return example_key_p.bind(key, *ties, **params), [dim]


def _folded(keys: Any, i: Any) -> Any:
    """Fold a number into keys, or the data of keys: one or an array of them."""
    axes = jnp.ndim(keys) - (not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key))
    fold = jax.random.fold_in
    for _ in range(axes):
        fold = jax.vmap(fold, (0, None))
    return fold(keys, i)


_jax.define_pure_primitive(
    example_key_p,
    impl=lambda key, *ties: [key],
    abstract_eval=lambda key, *ties: [key],
    jvp=lambda primals, _: (
        example_key_p.bind(*primals),
        [_tangents.zero_tangent(primals[0])],
    ),
    batch=_batch,
)
