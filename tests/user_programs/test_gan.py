"""A generative adversarial network, whose critic is bounded by `SpectralNorm`."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
GENERATOR = nn.Dense.of(16) >> nn.BatchNorm.of() >> jax.nn.relu >> nn.Dense.of(2)
CRITIC = nn.SpectralNorm.of(nn.Dense.of(16)) >> jax.nn.relu >> nn.SpectralNorm.of(nn.Dense.of(1))
OPTIMIZER = optax.adam(0.01, b1=0.5)
CENTER = np.array([2.0, -1.0], np.float32)


def real_points(key, size):
    return CENTER + 0.3 * jax.random.normal(key, (size, 2))


def critic_loss(critic, real, fake):
    """Hinge loss. The critic is updated by both batches, one after the other."""
    on_real, critic = ox.batch_call_and_update(critic, real, training=True)
    on_fake, critic = ox.batch_call_and_update(critic, fake, training=True)
    return jax.nn.relu(1 - on_real).mean() + jax.nn.relu(1 + on_fake).mean(), critic


def generator_loss(generator, critic, noise):
    """The critic is asked in evaluation, and stays as it is."""
    fake, generator = ox.batch_call_and_update(generator, noise, training=True)
    return -ox.batch_call(critic, fake, training=False).mean(), generator


def updated(model, optimizer_state, gradient):
    updates, optimizer_state = OPTIMIZER.update(gradient, optimizer_state)
    return eqx.apply_updates(model, updates), optimizer_state


def train_step(generator, critic, states, key):
    keys = jax.random.split(key, 3)
    real, noise = real_points(keys[0], 32), jax.random.normal(keys[1], (2, 32, 4))
    fake = ox.batch_call(generator, noise[0], training=True)
    (_, critic), gradient = ox.value_and_grad(critic_loss, has_aux=True)(critic, real, fake)
    critic, critic_state = updated(critic, states[1], gradient)
    (_, generator), gradient = ox.value_and_grad(generator_loss, has_aux=True)(
        generator, critic, noise[1]
    )
    generator, generator_state = updated(generator, states[0], gradient)
    return generator, critic, (generator_state, critic_state)


def new_pair():
    keys = jax.random.split(KEY)
    return ox.init(GENERATOR)(keys[0], jnp.ones(4)), ox.init(CRITIC)(keys[1], jnp.ones(2))


@jax.jit
def train(generator, critic, keys):
    """The trained pair, and the mean of the generated points after each step."""
    noise = jax.random.normal(jax.random.key(9), (64, 4))

    def step(carry, key):
        carry = train_step(*carry, key)
        return carry, ox.batch_call(carry[0], noise, training=False).mean(0)

    states = tuple(OPTIMIZER.init(ox.partition(model)[0]) for model in (generator, critic))
    (generator, critic, _), centers = jax.lax.scan(step, (generator, critic, states), keys)
    return generator, critic, centers


def test_the_generator_learns_where_the_data_are():
    _, critic, centers = train(*new_pair(), jax.random.split(KEY, 300))
    distances = np.linalg.norm(np.stack([centers[0], centers[-100:].mean(0)]) - CENTER, axis=1)
    assert distances[1] < 0.3 * distances[0]

    # The critic has slope 1 at most, up to the error of one power iteration for each step.
    slope = jax.jit(jax.vmap(jax.grad(lambda x: critic(x, training=False)[0])))
    assert (jnp.linalg.norm(slope(2 * real_points(KEY, 64)), axis=1) < 1.1).all()
    assert any(jnp.linalg.norm(layer.layer.kernel, 2) > 1.2 for layer in critic.layers[::2])


def test_a_step_of_the_critic_by_hand():
    _, critic = new_pair()
    real, fake = real_points(KEY, 8), jax.random.normal(KEY, (8, 2))
    gradient, new = jax.jit(ox.grad(critic_loss, has_aux=True))(critic, real, fake)

    first, _, last = critic.layers
    layers = first, last
    params = [(layer.layer.kernel, layer.layer.bias) for layer in layers]
    vectors = [layer.u for layer in layers]

    def run(params, vectors, xs):
        """The outputs, and the singular vectors after one power iteration."""
        new = []
        for i, ((kernel, bias), u) in enumerate(zip(params, vectors, strict=True)):
            constant = jax.lax.stop_gradient(kernel)
            v = constant @ u / jnp.linalg.norm(constant @ u)
            u = constant.T @ v / jnp.linalg.norm(constant.T @ v)
            xs = xs @ (kernel / (v @ kernel @ u)) + bias
            xs = jax.nn.relu(xs) if i == 0 else xs
            new.append(u)
        return xs, new

    def loss(params):
        on_real, after = run(params, vectors, real)
        on_fake, after = run(params, after, fake)
        return jax.nn.relu(1 - on_real).mean() + jax.nn.relu(1 + on_fake).mean(), after

    expected, after = jax.jit(jax.grad(loss, has_aux=True))(params)
    for i, u, (kernel, bias) in zip((0, 2), after, expected, strict=True):
        np.testing.assert_allclose(new.layers[i].u, u, atol=1e-5)
        np.testing.assert_allclose(gradient.layers[i].layer.kernel, kernel, atol=1e-5)
        np.testing.assert_allclose(gradient.layers[i].layer.bias, bias, atol=1e-5)
        assert gradient.layers[i].u is None and gradient.layers[i].v is None


def test_a_step_of_the_generator_leaves_the_critic():
    generator, critic = new_pair()
    noise = jax.random.normal(KEY, (8, 4))
    gradient, new = jax.jit(ox.grad(generator_loss, has_aux=True))(generator, critic, noise)
    assert (new.layers[1].mean != generator.layers[1].mean).all()
    assert jnp.linalg.norm(gradient.layers[0].kernel) > 0

    # With a critic that is linear in the points, the last bias has the slope as its gradient.
    linear = ox.init(nn.SpectralNorm.of(nn.Dense.of(1)))(KEY, jnp.ones(2))
    gradient = jax.jit(ox.grad(generator_loss, has_aux=True))(generator, linear, noise)[0]
    slope = linear.layer.kernel[:, 0] / jnp.linalg.norm(linear.layer.kernel)
    np.testing.assert_allclose(gradient.layers[3].bias, -slope, atol=1e-5)
