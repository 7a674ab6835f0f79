"""Layers that draw random numbers: where they are random, and where not."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn
from oryxstate._errors import InputError

KEY = jax.random.key(0)
X = jnp.arange(1.0, 9.0)
TEMPLATES = {
    "Dropout": nn.Dropout.of(0.5),
    "DropPath": nn.DropPath.of(0.5),
    "GaussianNoise": nn.GaussianNoise.of(0.5),
}
every = pytest.mark.parametrize("name", TEMPLATES)


def made(name):
    return TEMPLATES[name].init(KEY, X)


@every
def test_it_is_the_identity_unless_training(name):
    layer = made(name)
    np.testing.assert_array_equal(layer(X, training=False), X)
    np.testing.assert_array_equal(layer(X, training=False, rng=KEY), X)
    ones = jax.grad(lambda x: layer(x, training=False).sum())(X)
    np.testing.assert_array_equal(ones, jnp.ones(8))


@every
def test_the_identity_at_rate_0_needs_no_key(name):
    np.testing.assert_array_equal(type(made(name))(0.0)(X, training=True), X)


@every
def test_one_key_gives_one_output(name):
    layer = made(name)
    keys = jax.random.split(KEY, 20)
    runs = [jax.vmap(lambda k: layer(X, training=True, rng=k))(keys) for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    assert len({tuple(row) for row in runs[0].tolist()}) > 1


@every
def test_each_example_of_a_vmap_draws_its_own(name):
    xs = jnp.broadcast_to(X, (40, 8))
    model = nn.Serial.of(TEMPLATES[name]).init(KEY, X)
    out = jax.vmap(lambda x: model(x, training=True, rng=KEY))(xs)
    different = {tuple(row) for row in out.tolist()}
    assert len(different) == 2 if name == "DropPath" else len(different) > 30


class Repeated(ox.Module):
    """Calls its layer in each iteration of a loop."""

    layer: nn.Layer

    def call(self, x):
        return lax.scan(lambda _, __: (None, self.layer(x)), None, length=40)[1]


@every
def test_each_iteration_of_a_loop_draws_its_own(name):
    out = Repeated(made(name)).call_and_update(X, training=True, rng=KEY)[0]
    different = {tuple(row) for row in out.tolist()}
    assert len(different) == 2 if name == "DropPath" else len(different) > 30


@every
def test_two_layers_in_a_model_draw_their_own(name):
    model = nn.FanOut.of(*[TEMPLATES[name]] * 8).init(KEY, X)
    outs = model(X, training=True, rng=KEY)
    assert len({tuple(y.tolist()) for y in outs}) > (1 if name == "DropPath" else 7)


@every
def test_a_missing_key_names_the_layer(name):
    model = nn.Serial.of(jnp.sin, TEMPLATES[name]).init(KEY, X)
    with pytest.raises(TypeError, match=rf"{name} at 'layers\[1\]' needs `rng`\. Give it where"):
        model(X, training=True)
    with pytest.raises(TypeError, match=f"{name} needs `training`"):
        made(name)(X)


@every
def test_whether_it_trains_is_static(name):
    layer = made(name)
    with pytest.raises(TypeError, match=f"{name} got a traced `training`"):
        jax.jit(lambda t: layer(X, training=t, rng=KEY))(True)


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_dtype_stays(name, dtype):
    assert made(name)(X.astype(dtype), training=True, rng=KEY).dtype == dtype


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("layer", [nn.Dropout, nn.DropPath])
def test_rates_are_probabilities(layer, rate):
    with pytest.raises(ValueError, match=rf"{layer.__name__}: `rate` must be in \[0, 1\), got"):
        layer.of(rate)


@pytest.mark.parametrize("stddev", [-0.1, float("nan")])
def test_a_standard_deviation_is_not_negative(stddev):
    with pytest.raises(ValueError, match="GaussianNoise: `stddev` must not be negative, got"):
        nn.GaussianNoise.of(stddev)


def test_noise_is_for_floats():
    with pytest.raises(InputError, match="GaussianNoise takes floating-point numbers, but got int"):
        nn.GaussianNoise(1.0)(jnp.arange(3), training=True, rng=KEY)


# What is drawn ------------------------------------------------------------------------------------


def many(layer, x, count=2000):
    return jax.vmap(lambda k: layer(x, training=True, rng=k))(jax.random.split(KEY, count))


def test_dropout_drops_each_element_with_its_rate():
    out = np.asarray(many(nn.Dropout(0.3), X))
    kept = out != 0
    np.testing.assert_allclose(out[kept], np.broadcast_to(X / 0.7, out.shape)[kept], rtol=1e-6)
    np.testing.assert_allclose(kept.mean(0), 0.7, atol=0.05)  # five standard deviations
    assert 0 < kept[0].sum() < 8 or 0 < kept[1].sum() < 8


class Given(ox.Module):
    """Gives its layer a key itself, which is then the one that it uses."""

    layer: nn.Layer

    def call(self, x):
        return self.layer(x, training=True, rng=KEY)


def test_dropout_with_one_key_is_that_of_equinox():
    ours, theirs = Given(nn.Dropout(0.3)), lambda x: eqx.nn.Dropout(0.3)(x, key=KEY)
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-6)
    mine, other = (jax.grad(lambda x, f=f: jnp.sin(f(x)).sum())(X) for f in (ours, theirs))
    np.testing.assert_allclose(mine, other, atol=1e-6)


def test_noise_with_one_key_is_what_jax_draws():
    expected = X + 0.5 * jax.random.normal(KEY, X.shape)
    np.testing.assert_allclose(Given(nn.GaussianNoise(0.5))(X), expected, rtol=1e-6)


def test_drop_path_drops_all_or_nothing():
    out = np.asarray(many(nn.DropPath(0.3), X))
    kept = (out != 0).all(1)
    assert ((out != 0).any(1) == kept).all()
    np.testing.assert_allclose(out[kept], np.broadcast_to(X / 0.7, out.shape)[kept], rtol=1e-6)
    np.testing.assert_allclose(kept.mean(), 0.7, atol=0.05)


def test_noise_has_its_standard_deviation():
    noise = np.asarray(many(nn.GaussianNoise(0.5), X)) - np.asarray(X)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(noise.std(0), 0.5, atol=0.04)
    correlation = np.corrcoef(noise.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.12
    fourth = (noise**4).mean() / 0.5**4
    np.testing.assert_allclose(fourth, 3, atol=0.3)  # a normal distribution's


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.DropPath(0.5)])
def test_the_gradient_goes_through_what_is_kept(layer):
    for key in jax.random.split(KEY, 5):
        y, pull = jax.vjp(lambda x, key=key: layer(x, training=True, rng=key), X)
        np.testing.assert_array_equal(pull(jnp.ones(8))[0], jnp.where(y != 0, 2.0, 0.0))


def test_the_gradient_through_noise_is_that_of_the_input():
    grad = jax.grad(lambda x: nn.GaussianNoise(1.0)(x, training=True, rng=KEY).sum())(X)
    np.testing.assert_array_equal(grad, jnp.ones(8))


def test_a_residual_skips_its_body():
    body = nn.Lambda.of(lambda x: 3 * x) >> nn.DropPath.of(0.5)
    model = nn.Residual.of(body).init(KEY, X)
    out = jax.vmap(lambda x: model(x, training=True, rng=KEY))(jnp.ones((40, 2)))
    assert {tuple(row) for row in out.tolist()} == {(1.0, 1.0), (7.0, 7.0)}
