"""A new user's program: a recurrent network that learns from streams, chunk by chunk.

Each example of the batch is an endless stream of short sequences, which end at any step. The task
is the running sum of the sequence, which a network learns only if it remembers across chunks and
forgets at resets.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import oryxstate as ox
from oryxstate import nn

BATCH, TIME, CHUNKS = 16, 5, 200


def streams_of_data(key):
    """Chunks of steps, of where a sequence starts, and of the sums so far."""
    keys = jax.random.split(key)
    xs = jax.random.uniform(keys[0], (BATCH, CHUNKS * TIME), minval=-0.5, maxval=0.5)
    reset = jax.random.bernoulli(keys[1], 0.15, xs.shape)

    def step(total, inputs):
        x, starts = inputs
        total = jnp.where(starts, 0.0, total) + x
        return total, total

    sums = jax.vmap(lambda x, r: jax.lax.scan(step, jnp.float32(0), (x, r))[1])(xs, reset)
    return [jnp.split(a, CHUNKS, 1) for a in (xs[..., None], reset, sums)]


def loss(model, xs, reset, sums):
    ys, model = model.call_and_update(xs, reset=reset)
    return jnp.square(ys[..., 0] - sums).mean(), model


def test_a_streaming_network_learns_across_chunks_and_forgets_at_resets():
    template = nn.RNN.of(nn.GRUCell.of(12), stateful=True) >> nn.Dense.of(1)
    model = ox.per_example(ox.init(template)(jax.random.key(0), jnp.ones((TIME, 1))), BATCH)
    optimizer = optax.adam(0.02)
    optimizer_state = optimizer.init(ox.partition(model)[0])

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(model, optimizer_state, xs, reset, sums):
        (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model, xs, reset, sums)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return eqx.apply_updates(model, updates), optimizer_state, value

    data = streams_of_data(jax.random.key(1))
    values = []
    with jax.numpy_dtype_promotion("standard"):  # Adam promotes its counters
        for xs, reset, sums in zip(*data, strict=True):
            model, optimizer_state, value = train_step(model, optimizer_state, xs, reset, sums)
            values.append(float(value))
    assert np.mean(values[-20:]) < 0.25 * np.mean(values[:10])

    # One call of a whole stream, from the same carry, is all its chunks.
    whole = [jnp.concatenate(parts[:6], 1) for parts in data]
    at_once, after = model.call_and_update(whole[0], reset=whole[1])
    ys = []
    for xs, reset, _ in list(zip(*data, strict=True))[:6]:
        y, model = model.call_and_update(xs, reset=reset)
        ys.append(y)
    np.testing.assert_allclose(jnp.concatenate(ys, 1), at_once, atol=1e-5)
    carries = [m.model[0].cell.carry for m in (model, after)]
    np.testing.assert_allclose(*carries, atol=1e-5)
    assert carries[0].shape == (BATCH, 12)

    # To serve one stream, give it the params and a carry of its own.
    one = ox.per_example(model.model, 1)
    assert one.model[0].cell.kernel.shape == (1, 36)
