"""A random key that a model keeps as state."""

from __future__ import annotations

from typing import Any

import jax

from oryxstate import _example_keys
from oryxstate._module._base import Module
from oryxstate._module._fields import state


class Rng(Module):
    """A random key as state: each call gives another key.

    A call splits the key, keeps one half and gives the other. It does so in each iteration of a
    loop. Under a `jax.vmap` over examples the state is that of the model and all examples advance
    it once; `like` says where they get different keys: an array, such as the input, that differs
    by example. Without it all examples of one call share a key. (An `Rng` that is mapped itself,
    one for each member of an ensemble, gives each member keys of its own.)

    Layers that take `rng` as a keyword get a key of their own without it; this is for a model
    that is to be random without being told.

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
        """A key that was not given before.

        Args:
            like: a pytree of arrays; each example of every `vmap` that maps any of them, and each
                device of a `shard_map` along which they differ, gets a key of its own.
        """
        keys = jax.random.split(self.key)
        self.assign(key=keys[0])
        return _example_keys.for_each_example(keys[1], like)
