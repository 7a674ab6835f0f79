"""How do the writes of the examples of a `vmap` combine (S6)?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import Host, both, close
from jax import lax
from jaxtyping import Array

import oryxstate as ox

XS = np.array([1.0, 2.0, 4.0], np.float32)


class Mean(ox.Module):
    total: Array = ox.state(reduce=jnp.mean)
    peak: Array = ox.state(reduce=jnp.max)

    def call(self, x):
        self.assign(total=x, peak=jnp.maximum(self.peak, x))
        return x


def test_reduce():
    def step(m, h):
        ys = jax.vmap(m)(h * XS)
        nested = jax.vmap(jax.vmap(lambda x: m(x)))((h * XS).reshape(3, 1))
        return ys, nested, jax.vmap(lambda x: lax.cond(x < 3, m, lambda x: -x, x))(h * XS)

    host, h = Host(Mean(jnp.float32(9), jnp.float32(0)), step), jnp.float32(1)
    for run in both(ox.call_and_update):
        (ys, nested, chosen), new = run(host, h)
        close(ys, XS)
        close(nested, XS[:, None])
        close(chosen, jnp.array([1.0, 2.0, -4.0]))
        # The cond leaves 1 and 2 where it writes, and where it does not 7 / 3, the mean before it.
        close(new, (jnp.float32((1 + 2 + 7 / 3) / 3), jnp.float32(4)))


def test_reduce_of_another_shape():
    class Wrong(ox.Module):
        total: Array = ox.state(reduce=lambda values, axis: values)

        def call(self, x):
            self.assign(total=x)

    for run in both(ox.call):
        with pytest.raises(
            ox.EffectError, match=r"`reduce` of state 'inner.total'.*\[3\] into \[\]"
        ):
            run(Host(Wrong(jnp.float32(0)), lambda m, h: jax.vmap(m)(h * XS)), jnp.float32(1))
