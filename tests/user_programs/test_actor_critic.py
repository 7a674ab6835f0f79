"""An actor and a critic that learn while they act, all in one `jax.lax.scan`."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import oryxstate as ox
from oryxstate import nn

DISCOUNT, TARGET = 0.8, 2.0
OPTIMIZER = optax.sgd(0.05)


def environment(position, action):
    """A point on a line, which each action moves by one; the reward is highest at the target."""
    position = jnp.clip(position + 2.0 * action - 1, -5, 5)
    return position, -jnp.abs(position - TARGET)


class Normalizer(ox.Module):
    """Running mean and variance of all observations."""

    count: Int[Array, ""] = ox.state()
    mean: Float[Array, ""] = ox.state()
    squares: Float[Array, ""] = ox.state()

    def call(self, x):
        return (x - self.mean) / jnp.sqrt(self.squares / self.count + 1e-2)

    def observe(self, x):
        count = self.count + 1
        mean = self.mean + (x - self.mean) / count
        squares = self.squares + (x - self.mean) * (x - mean)
        self.assign(count=count, mean=mean, squares=squares)


class Agent(ox.Module):
    normalizer: Normalizer
    actor: nn.Dense
    critic: nn.MLP
    rng: nn.Rng

    def features(self, x):
        x = self.normalizer(x)
        return jnp.stack([x, x**2])

    def call(self, x):
        """The log probabilities of both actions, and the value."""
        features = self.features(x)
        return jax.nn.log_softmax(self.actor(features)), self.critic(features)[0]

    def act(self, x):
        self.normalizer.observe(x)
        return jax.random.categorical(self.rng(), self(x)[0])


def new_agent():
    keys, x = jax.random.split(jax.random.key(0), 3), jnp.ones(2)
    return Agent(
        Normalizer(jnp.int32(1), jnp.float32(0.0), jnp.float32(1.0)),
        ox.init(nn.Dense.of(2))(keys[0], x),
        ox.init(nn.MLP.of((8, 1), jnp.tanh))(keys[1], x),
        nn.Rng(keys[2]),
    )


def loss(agent, position, action, reward, following):
    logs, value = agent(position)
    target = reward + DISCOUNT * jax.lax.stop_gradient(agent(following)[1])
    advantage = target - value
    return advantage**2 - jax.lax.stop_gradient(advantage) * logs[action]


def step(carry, _):
    agent, optimizer_state, position = carry
    action, agent = ox.call_and_update(agent.act, position)
    following, reward = environment(position, action)
    gradient = ox.grad(loss)(agent, position, action, reward, following)
    updates, optimizer_state = OPTIMIZER.update(gradient, optimizer_state)
    return (eqx.apply_updates(agent, updates), optimizer_state, following), (action, reward)


def learn(agent, steps):
    state = OPTIMIZER.init(ox.partition(agent)[0])
    (agent, _, _), history = jax.lax.scan(
        step, (agent, state, jnp.float32(-4.0)), None, length=steps
    )
    return agent, history


def test_it_learns_to_stay_near_the_target():
    agent, (_, rewards) = jax.jit(learn, static_argnums=1)(new_agent(), 1500)
    assert rewards[-300:].mean() > -1.2 > rewards[:30].mean()
    assert agent.normalizer.count == 1501


def test_the_first_steps_by_hand():
    """A Python loop over dictionaries, with everything passed by hand."""
    steps = 25
    agent, (actions, rewards) = jax.jit(learn, static_argnums=1)(new_agent(), steps)

    first = new_agent()
    params = {
        "actor": (first.actor.kernel, first.actor.bias),
        "critic": [(layer.kernel, layer.bias) for layer in first.critic.layers],
    }
    count, mean, squares, key = 1, 0.0, 1.0, first.rng.key

    def run(params, x, normal):
        count, mean, squares = normal
        x = (x - mean) / jnp.sqrt(squares / count + 1e-2)
        features = jnp.stack([x, x**2])
        kernel, bias = params["actor"]
        logs = jax.nn.log_softmax(features @ kernel + bias)
        (k1, b1), (k2, b2) = params["critic"]
        return logs, (jnp.tanh(features @ k1 + b1) @ k2 + b2)[0]

    def objective(params, position, action, reward, following, normal):
        logs, value = run(params, position, normal)
        future = jax.lax.stop_gradient(run(params, following, normal)[1])
        advantage = reward + DISCOUNT * future - value
        return advantage**2 - jax.lax.stop_gradient(advantage) * logs[action]

    gradient_of, position = jax.jit(jax.grad(objective)), -4.0
    for i in range(steps):
        count, old = count + 1, mean
        mean = old + (position - old) / count
        squares = squares + (position - old) * (position - mean)
        key, own = jax.random.split(key)
        action = jax.random.categorical(own, run(params, position, (count, mean, squares))[0])
        following, reward = environment(position, action)
        assert action == actions[i] and reward == rewards[i]
        gradient = gradient_of(params, position, action, reward, following, (count, mean, squares))
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
        position = following
    np.testing.assert_allclose(agent.normalizer.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(agent.normalizer.squares, squares, rtol=1e-4)
    np.testing.assert_allclose(agent.actor.kernel, params["actor"][0], rtol=1e-3, atol=1e-4)
    for layer, (kernel, bias) in zip(agent.critic.layers, params["critic"], strict=True):
        np.testing.assert_allclose(layer.kernel, kernel, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(layer.bias, bias, rtol=1e-3, atol=1e-4)
