"""A random key that a model keeps as state."""

from __future__ import annotations

from typing import Any

import jax

from oryxstate import _example_keys
from oryxstate._module._base import Module
from oryxstate._module._fields import state


class Rng(Module):
    """A random key as state: each call returns another key.

    A call splits the key, keeps one half and returns the other, also in each iteration of a loop.
    Under a `jax.vmap` over examples, all examples advance the shared state once. They get different
    keys if they give `like`, an array that differs by example, such as the input; without it all
    examples of one call share a key. (A mapped `Rng`, one for each member of an ensemble, returns
    different keys to the members.)

    Layers that take `rng` as a keyword do not need it. It is for a model that draws random numbers
    without getting a key at each call.

    Attributes:
        key: the key, typed or as uint32 data, from which the next one is split.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> class Noisy(ox.Module):
        ...     rng: nn.Rng
        ...     def call(self, x):
        ...         return x + jax.random.normal(self.rng(x), x.shape)
        >>> noisy = Noisy(nn.Rng(jax.random.key(0)))
        >>> y, after = jax.vmap(noisy.call_and_update, out_axes=(0, None))(jnp.zeros(3))
        >>> len(set(y.tolist()))
        3
        >>> bool(after(jnp.zeros(())) == noisy(jnp.zeros(())))
        False
    """

    key: jax.Array = state()

    def call(self, like: Any = None) -> jax.Array:
        """Return a key that was not returned before.

        Args:
            like: a pytree of arrays; each example of every `vmap` that maps any of them, and each
                device of a `shard_map` along which they differ, gets a key of its own.
        """
        keys = jax.random.split(self.key)
        self.assign(key=keys[0])
        return _example_keys.for_each_example(keys[1], like)
