"""A new user's program: a residual network with averaged parameters and accumulated gradients.

It is interrupted in the middle of an accumulation, and resumes from a file as if it were not.
"""

from __future__ import annotations

import pickle
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import oryxstate as ox
from oryxstate import nn

MICRO = 2  # batches for each update of the optimizer
NET = (
    nn.Conv.of(4, 3, padding="SAME")
    >> nn.ResNetBlock.of(8, strides=2, norm=nn.BatchNorm.of(momentum=0.9))
    >> nn.GlobalAvgPool.of()
    >> nn.Dropout.of(0.1)
    >> nn.Dense.of(2)
)
OPTIMIZER = optax.MultiSteps(optax.adam(0.01), MICRO)


def batch(step):
    """Images whose brighter half is the left (0) or the right one (1)."""
    key, noise = jax.random.split(jax.random.fold_in(jax.random.key(7), step))
    labels = jax.random.bernoulli(key, 0.5, (16,)).astype(jnp.int32)
    side = jnp.arange(6)[None] // 3 == labels[:, None]
    images = jnp.broadcast_to(side[:, None, :, None], (16, 6, 6, 1)).astype(jnp.float32)
    return images + 0.3 * jax.random.normal(noise, images.shape), labels


def loss(model, images, labels, key):
    logits, model = ox.batch_call_and_update(model, images, training=True, rng=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), model


@partial(jax.jit, donate_argnums=0)
def train_step(state, images, labels):
    model, optimizer_state, key = state
    key, own = jax.random.split(key)
    (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model, images, labels, own)
    params, _ = ox.partition(model)
    updates, optimizer_state = OPTIMIZER.update(gradient, optimizer_state, params)
    return (eqx.apply_updates(model, updates), optimizer_state, key), value


def fresh():
    template = nn.EMA.of(nn.MixedPrecision.of(NET), 0.8, every=MICRO)
    model = ox.init(template)(jax.random.key(0), batch(0)[0][0])
    return model, OPTIMIZER.init(ox.partition(model)[0]), jax.random.key(1)


def run(state, steps):
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps promotes its counters
        for step in steps:
            state, _ = train_step(state, *batch(step))
    return state


def save(path, state):
    leaves = jax.tree.leaves(state)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    data = [jax.random.key_data(x) if k else x for x, k in zip(leaves, is_key, strict=True)]
    path.write_bytes(pickle.dumps([np.asarray(leaf) for leaf in data]))


def load(path, like):
    leaves, structure = jax.tree.flatten(like)
    loaded = [jnp.asarray(leaf) for leaf in pickle.loads(path.read_bytes())]
    return jax.tree.unflatten(
        structure,
        [
            jax.random.wrap_key_data(new) if new.dtype != old.dtype else new
            for new, old in zip(loaded, leaves, strict=True)
        ],
    )


@jax.jit
def accuracy(model, images, labels):
    logits = ox.batch_call(model, images, training=False)
    return jnp.mean(jnp.argmax(logits, -1).astype(jnp.int32) == labels, dtype=jnp.float32)


def test_a_residual_network_is_averaged_interrupted_and_resumed(tmp_path):
    # Interrupted after the first of two batches: gradients, count and average are in the file.
    state = run(fresh(), range(17))
    assert int(state[0].count) == 1
    save(tmp_path / "state.pkl", state)
    resumed = run(load(tmp_path / "state.pkl", like=fresh()), range(17, 60))
    straight = run(state, range(17, 60))
    for ours, want in zip(*map(jax.tree.leaves, (resumed[:2], straight[:2])), strict=True):
        np.testing.assert_array_equal(ours, want)

    model = resumed[0]
    floats = {leaf.dtype for leaf in ox.named_leaves(model).values()} - {jnp.dtype(jnp.int32)}
    assert floats == {jnp.dtype(jnp.float32)}  # parameters, statistics and averages
    test = batch(1000)
    assert accuracy(model, *test) > 0.9
    np.testing.assert_array_equal(accuracy(model.averaged(), *test), accuracy(model, *test))
    kernels = [m.layer[0].kernel for m in (model.averaged(), model.layer)]
    assert not np.allclose(*kernels, atol=1e-4)
