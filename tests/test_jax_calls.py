"""Calls that JAX itself makes of parts of a program pass through a root call."""

import jax
import jax.numpy as jnp
import numpy as np
from hosts import Host
from jax import lax
from threaded import Acc, made

import oryxstate as ox


def doubled(x, times):
    """`x * 2 ** times`, by a loop whose end is not known when it is staged."""
    return lax.while_loop(
        lambda c: c[1] < times, lambda c: (c[0] * 2, c[1] + 1), (x, jnp.int32(0))
    )[0]


def test_a_loop_in_a_checkpoint_is_linearized():
    """Up to JAX 0.11.0 the part that does not depend on the input is a call (`process_call`)."""

    def step(m, h):
        m(h)
        times = jnp.int32(3) + h.astype(jnp.int32) * 0  # traced, and constant for the derivative

        @jax.checkpoint
        def function(x):
            def body(carry, _):
                return carry * doubled(jnp.float32(1), times), None

            return lax.scan(body, x, None, length=2)[0] + doubled(x, times)

        y, push = jax.linearize(function, h)
        return y + push(jnp.float32(1))

    h = jnp.float32(0.5)
    host = Host(made(Acc), step)
    y, new = jax.jit(ox.call_and_update)(host, h)
    np.testing.assert_allclose(y, (64 + 8) * 0.5 + (64 + 8))
    assert new.inner.count == host.inner.count + 1
