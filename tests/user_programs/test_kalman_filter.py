"""A Kalman filter whose belief is state, and whose noise is learned by maximum likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import oryxstate as ox

STEPS, DT = 60, 0.5
MOTION = jnp.array([[1.0, DT], [0.0, 1.0]])  # of position and velocity; the position is observed
FORCE = jnp.array([DT * DT / 2, DT])


class KalmanFilter(ox.Module):
    """A point that moves under random forces, seen through noise."""

    log_force: Float[Array, ""] = ox.param()
    log_noise: Float[Array, ""] = ox.param()
    mean: Float[Array, "2"] = ox.state()
    covariance: Float[Array, "2 2"] = ox.state()

    def call(self, z: Float[Array, ""]) -> Float[Array, ""]:
        """Take one observation; return its log density, given the ones before."""
        force, noise = jnp.exp(self.log_force), jnp.exp(self.log_noise)
        mean = MOTION @ self.mean
        covariance = MOTION @ self.covariance @ MOTION.T + force * jnp.outer(FORCE, FORCE)
        variance = covariance[0, 0] + noise
        gain, error = covariance[:, 0] / variance, z - mean[0]
        self.assign(
            mean=mean + gain * error,
            covariance=covariance - jnp.outer(gain, gain) * variance,
        )
        return -0.5 * (jnp.log(2 * jnp.pi * variance) + error**2 / variance)


def new_filter():
    return KalmanFilter(jnp.float32(-1.0), jnp.float32(1.0), jnp.zeros(2), 10 * jnp.eye(2))


def log_likelihood(model, zs):
    def step(model, z):
        density, model = model.call_and_update(z)
        return model, density

    model, densities = jax.lax.scan(step, model, zs)
    return densities.sum(), model


def observed():
    """Observations with variance 0.09 of a point under forces of variance 0.25."""
    draw = np.random.default_rng(0)
    state, zs = np.zeros(2), []
    for _ in range(STEPS):
        state = np.asarray(MOTION) @ state + 0.5 * draw.normal() * np.asarray(FORCE)
        zs.append(state[0] + 0.3 * draw.normal())
    return np.array(zs, np.float32)


def by_hand(log_force, log_noise, zs):
    """The same in NumPy and float64: the joint density of all observations, and the last belief.

    Nothing is filtered: the observations and the last state are one normal vector.
    """
    a, g, n = np.asarray(MOTION, np.float64), np.asarray(FORCE, np.float64), len(zs)
    # The state after step k: a^(k+1) times the first one, and each force with its power of a.
    powers = [np.linalg.matrix_power(a, k) for k in range(n + 1)]
    states = np.zeros((n, 2, 2 + n))
    for k in range(n):
        states[k, :, :2] = powers[k + 1]
        for i in range(k + 1):
            states[k, :, 2 + i] = powers[k - i] @ g
    source = np.diag([10.0, 10.0] + [np.exp(log_force)] * n)
    seen = states[:, 0]
    joint = seen @ source @ seen.T + np.exp(log_noise) * np.eye(n)
    cross = states[-1] @ source @ seen.T
    _, logdet = np.linalg.slogdet(joint)
    density = -0.5 * (n * np.log(2 * np.pi) + logdet + zs @ np.linalg.solve(joint, zs))
    mean = cross @ np.linalg.solve(joint, zs)
    covariance = states[-1] @ source @ states[-1].T - cross @ np.linalg.solve(joint, cross.T)
    return density, mean, covariance


def test_the_belief_and_the_likelihood_are_those_of_the_joint_normal():
    zs = observed()
    value, model = jax.jit(log_likelihood)(new_filter(), zs)
    density, mean, covariance = by_hand(-1.0, 1.0, zs.astype(np.float64))
    np.testing.assert_allclose(value, density, rtol=1e-4)
    np.testing.assert_allclose(model.mean, mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(model.covariance, covariance, rtol=1e-3, atol=1e-3)


def test_the_gradient_goes_through_the_state_of_all_steps():
    zs = observed()
    got = jax.jit(ox.grad(lambda model, zs: log_likelihood(model, zs)[0]))(new_filter(), zs)
    assert got.mean is None and got.covariance is None
    for i, name in enumerate(["log_force", "log_noise"]):
        step = np.eye(2)[i] * 1e-4
        ahead, behind = (by_hand(*(np.array([-1.0, 1.0]) + s), zs)[0] for s in (step, -step))
        np.testing.assert_allclose(getattr(got, name), (ahead - behind) / 2e-4, rtol=1e-3)


def test_the_noise_is_learned_by_maximum_likelihood():
    zs, optimizer = observed(), optax.adam(0.1)

    @jax.jit
    def fit(model):
        def step(carry, _):
            params, rest, state = carry
            gradient = ox.grad(lambda m: -log_likelihood(m, zs)[0])(ox.merge(params, rest))
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), rest, state), None

        params, rest = ox.partition(model)
        (params, rest, _), _ = jax.lax.scan(
            step, (params, rest, optimizer.init(params)), None, length=150
        )
        return ox.merge(params, rest)

    model = fit(new_filter())
    before, after = (
        by_hand(float(m.log_force), float(m.log_noise), zs)[0] for m in (new_filter(), model)
    )
    at_truth = by_hand(np.log(0.25), np.log(0.09), zs)[0]
    assert before < at_truth <= after + 1e-3
    assert 0.04 < jnp.exp(model.log_noise) < 0.2
