"""An ensemble, made, trained and asked by `jax.vmap`; each member has its own params and state."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import oryxstate as ox
from oryxstate import nn

MEMBERS, EXAMPLES, STEPS = 4, 24, 60
TEMPLATE = (
    nn.BatchNorm.of(momentum=0.9)
    >> nn.Dense.of(16)
    >> jnp.tanh
    >> nn.Dropout.of(0.1)
    >> nn.Dense.of(1)
)
OPTIMIZER = optax.adam(0.03)
KEYS = jax.random.split(jax.random.key(0), MEMBERS)


def new_member(key):
    model = ox.init(TEMPLATE)(key, ox.ArraySpec(1))
    return model, OPTIMIZER.init(ox.partition(model)[0])


def train_step(model, optimizer_state, xs, ys, key):
    """One step of one member."""

    def loss(model):
        predicted, model = ox.batch_call_and_update(model, xs, training=True, rng=key)
        return jnp.mean((predicted - ys) ** 2), model

    (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model)
    updates, optimizer_state = OPTIMIZER.update(gradient, optimizer_state)
    return eqx.apply_updates(model, updates), optimizer_state, value


def train(model, optimizer_state, xs, ys, key):
    def step(carry, key):
        model, optimizer_state, value = train_step(*carry, xs, ys, key)
        return (model, optimizer_state), value

    (model, _), losses = jax.lax.scan(step, (model, optimizer_state), jax.random.split(key, STEPS))
    return model, losses


def data():
    """Two clouds of points on a curve, and for each member a bootstrap sample of them."""
    draw = np.random.default_rng(0)
    xs = np.concatenate([draw.uniform(-2, -1, EXAMPLES), draw.uniform(1, 2, EXAMPLES)])
    chosen = draw.integers(0, len(xs), (MEMBERS, len(xs)))
    xs = xs[chosen][..., None].astype(np.float32)
    return jnp.asarray(xs), jnp.asarray(xs + np.sin(3 * xs) / 2)


def test_each_member_is_the_model_trained_alone():
    (xs, ys), train_keys = data(), jax.random.split(jax.random.key(1), MEMBERS)
    ensemble, losses = jax.jit(jax.vmap(train))(
        *jax.jit(jax.vmap(new_member))(KEYS), xs, ys, train_keys
    )
    assert losses.shape == (MEMBERS, STEPS) and ensemble.layers[0].mean.shape == (MEMBERS, 1)
    assert (losses[:, -10:].mean(1) < 0.3 * losses[:, 0]).all()
    for i in range(MEMBERS):
        alone, its = jax.jit(train)(*new_member(KEYS[i]), xs[i], ys[i], train_keys[i])
        np.testing.assert_allclose(losses[i], its, rtol=1e-3, atol=1e-4)
        member = jax.tree.map(lambda leaf, i=i: leaf[i], ensemble)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), member, alone
        )

    def asked(x):
        """The answer of each member to one input."""
        return jax.vmap(lambda member: member(x, training=False))(ensemble)

    answers = jax.vmap(asked)(jnp.array([[-1.5], [0.0], [1.5], [6.0]]))
    assert answers.shape == (4, MEMBERS, 1)
    spread = answers.std(1)[:, 0]
    assert spread[3] > max(spread[0], spread[2])  # far from all data


def test_statistics_are_those_of_the_members_own_examples():
    (xs, ys), (members, states) = data(), jax.jit(jax.vmap(new_member))(KEYS)
    members, _, _ = jax.jit(jax.vmap(train_step))(members, states, xs, ys, KEYS)
    np.testing.assert_allclose(members.layers[0].mean, 0.1 * xs.mean(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(members.layers[0].variance, 0.9 + 0.1 * xs.var(1), rtol=1e-4)
