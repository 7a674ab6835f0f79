"""The random numbers and keys of JAX, looked up for the oracle."""

from __future__ import annotations

import functools

import jax


def split(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next key, and a number from 0 to 1."""
    key, used = jax.random.split(key)
    return key, jax.random.uniform(used)


@functools.cache
def _chain(seed: int, count: int) -> jax.Array:
    return jax.random.key(seed) if count == 0 else _compiled_split(_chain(seed, count - 1))[0]


_compiled_split = jax.jit(split)


@functools.cache
def draw(seed: int, count: int) -> tuple[float, tuple[int, ...]]:
    """The number that the `count`-th split gives, and the data of the key before it."""
    with jax.ensure_compile_time_eval():
        key = _chain(seed, count)
        return float(_compiled_split(key)[1]), tuple(jax.random.key_data(key).tolist())
