"""Limits of running statistics and carries over many steps, with parameters of any dtype."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox
from oryxstate import nn
from oryxstate.nn._precision import blended

KEY = jax.random.key(0)
dtypes = pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])


def after(steps, update, model):
    """The model after many updates, in one program."""
    return jax.jit(lambda m: jax.lax.fori_loop(0, steps, lambda _, m: update(m), m))(model)


@dtypes
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 0.9999])
def test_an_average_of_parameters_reaches_them(dtype, decay):
    x, steps = jnp.ones(1, dtype), 20_000
    dense = nn.Dense.of(1, use_bias=False, param_dtype=dtype).init(KEY, x)
    model = nn.EMA.of(dense.replace(kernel=jnp.zeros((1, 1), dtype)), decay).init(KEY, x)
    model = model.replace(layer=dense.replace(kernel=jnp.ones((1, 1), dtype)))
    model = after(steps, lambda m: m.update(x, training=True), model)
    (average,) = jax.tree.leaves(model.average)
    assert average.dtype == jnp.float32
    np.testing.assert_allclose(average, [[1 - decay**steps]], rtol=1e-3)
    assert model(x, training=False).dtype == dtype == model(x, training=True).dtype


@dtypes
def test_statistics_of_batches_reach_those_of_the_data(dtype):
    xs, momentum, steps = jnp.array([[1.0], [5.0]], dtype), 0.999, 5000
    norm = nn.BatchNorm.of(momentum=momentum, param_dtype=dtype).init(KEY, xs[0])
    norm = after(steps, lambda m: ox.batch_call_and_update(m, xs, training=True)[1], norm)
    old = momentum**steps
    np.testing.assert_allclose(norm.mean, [3 * (1 - old)], rtol=1e-4)
    np.testing.assert_allclose(norm.variance, [4 + (1 - 4) * old], rtol=1e-4)
    for options in ({}, {"use_scale": False, "use_bias": False}):
        norm = nn.BatchNorm.of(param_dtype=dtype, **options).init(KEY, xs[0])
        assert norm.mean.dtype == norm.variance.dtype == jnp.float32
        for training in (False, True):
            assert ox.batch_call(norm, xs, training=training).dtype == dtype


def with_bias(template, dtype, bias):
    """A cell whose gates are those of its bias alone."""
    cell = template(1, param_dtype=dtype).init(KEY, jnp.ones(1, dtype))
    empty = {name: jnp.zeros_like(value) for name, value in cell.params.items()}
    return cell.replace(params={**empty, "bias": jnp.array(bias, dtype)})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@dtypes
def test_memory_of_an_lstm_adds_up_small_terms(dtype):
    cell, steps = with_bias(nn.LSTMCell.of, dtype, [-5.0, 20.0, 1.0, 0.0]), 2000
    cell = after(steps, lambda m: m.update(jnp.ones(1, dtype)), cell)
    np.testing.assert_allclose(cell.carry[1], [steps * sigmoid(-5) * np.tanh(1)], rtol=1e-3)


@dtypes
def test_memory_of_a_gru_decays_slowly(dtype):
    """In bfloat16 the update gate would be 1."""
    cell, steps = with_bias(nn.GRUCell.of, dtype, [0.0, 7.0, 1.0]), 5000
    cell = after(steps, lambda m: m.update(jnp.ones(1, dtype)), cell)
    np.testing.assert_allclose(cell.carry, [np.tanh(1) * (1 - sigmoid(7) ** steps)], rtol=2e-3)


WITH_STATE = {
    "BatchNorm": nn.BatchNorm.of(param_dtype="bfloat16"),
    "EMA": nn.EMA.of(nn.Dense.of(2, param_dtype="bfloat16")),
    "SpectralNorm": nn.SpectralNorm.of(nn.Dense.of(2, param_dtype="bfloat16")),
    "SimpleRNNCell": nn.SimpleRNNCell.of(2, param_dtype="bfloat16"),
    "GRUCell": nn.GRUCell.of(2, param_dtype="bfloat16"),
    "LSTMCell": nn.LSTMCell.of(2, param_dtype="bfloat16"),
}
# The cache holds what it was given, `LoRA` frozen parameters, `Rng` integers.
NO_ACCUMULATORS = {"CachedAttention", "LoRA", "RecurrentCell", "Rng"}


def test_every_layer_with_state_is_looked_at():
    classes = [getattr(nn, name) for name in nn.__all__]
    modules = [c for c in classes if inspect.isclass(c) and issubclass(c, ox.Module)]
    assert {c.__name__ for c in modules if c.__layout__.state} == {*WITH_STATE, *NO_ACCUMULATORS}


@pytest.mark.parametrize("name", WITH_STATE)
def test_state_is_float32_at_least(name):
    model = WITH_STATE[name].init(KEY, jnp.ones(3, "bfloat16"))
    fields = [getattr(model, field) for field in type(model).__layout__.state]
    floats = {leaf.dtype for leaf in jax.tree.leaves(fields)} - {jnp.dtype("int32")}  # counters
    assert floats == {jnp.dtype("float32")}
    params, _ = ox.partition(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_blend_is_its_formula_and_keeps_what_is_equal(keep):
    old, new = jax.random.normal(KEY, (2, 100))
    want = keep * np.asarray(old, np.float64) + (1 - keep) * np.asarray(new, np.float64)
    np.testing.assert_allclose(blended(old, new, keep), want, atol=1e-6)
    np.testing.assert_array_equal(blended(old, old, keep), old)
    np.testing.assert_array_equal(blended(1e30 * old, new, 0.0), new)
