"""NaN and infinity in inputs and parameters, and the outputs that they must not reach."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attentions import KINDS, TIME, assert_close, kinds, made, sequence

import oryxstate as ox
from oryxstate import nn
from oryxstate.nn._attend import attend

KEY = jax.random.key(0)
bad = pytest.mark.parametrize("value", [jnp.nan, jnp.inf])


@kinds
@bad
def test_a_cache_that_starts_again_sees_nothing_of_the_old_sequence(kind, value):
    layer, x = made(causal=True, **KINDS[kind]), sequence()
    cached = layer.cached(TIME)
    poisoned = cached.update(jnp.full_like(x, value)).replace(length=jnp.array(0, jnp.int32))

    def loss(params, x, cached):
        return jnp.sum(jnp.sin(cached.replace(params=params)(x)))

    y, new = poisoned.call_and_update(x[:2])
    assert_close(y, layer(x[:2]))
    assert_close(new(x[2:4]), layer(x[:4])[2:])
    slope = jax.grad(loss, (0, 1))
    assert_close(*(slope(layer.params, x[:2], c) for c in (poisoned, cached)))


@kinds
@bad
@pytest.mark.parametrize("causal", [False, True])
def test_padding_that_a_mask_hides_does_not_matter(kind, value, causal):
    layer, x = made(causal=causal, **KINDS[kind]), sequence()
    mask = jnp.ones((TIME, TIME), bool).at[:, -2:].set(False)
    assert_close(layer(x.at[-2:].set(value), mask=mask)[:-2], layer(x, mask=mask)[:-2])


@bad
def test_derivatives_do_not_come_from_what_is_hidden(value):
    queries, keys, values = jax.random.normal(KEY, (3, TIME, 4, 2))
    keys, values, mask = keys[:, :2], values[:, :2], jnp.ones((4, TIME, TIME), bool)
    mask = mask.at[:2, :, 0].set(False).at[:, :, 1].set(False)

    def loss(queries, keys, values):
        return jnp.sum(jnp.sin(attend(queries, keys, values, mask)))

    slope = jax.value_and_grad(loss, (0, 1, 2))
    hidden = [x.at[1].set(value).at[0, 0].set(value) for x in (keys, values)]
    assert_close(slope(queries, *hidden), slope(queries, keys, values))


def test_each_head_hides_its_own():
    layer, x = made(), sequence()
    mask = jnp.ones((4, TIME, TIME), bool).at[1:, :, 0].set(False)
    ys = [layer(x.at[0].set(v), mask=mask.at[0, :, 0].set(False))[1:] for v in (0.0, jnp.nan)]
    assert_close(*ys)
    assert jnp.isnan(layer(x.at[0].set(jnp.nan), mask=mask)).all()


@bad
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell])
def test_masked_steps_of_a_sequence_do_not_matter(cell, value, reverse):
    x, mask = sequence(), jnp.array([True, False, True, True, False, False])
    rnn = nn.RNN.of(cell.of(3), reverse=reverse).init(KEY, x)

    def loss(rnn, x):
        return jnp.sum(jnp.sin(rnn(x, mask)))

    ours, want = (
        jax.value_and_grad(loss, (0, 1))(rnn, jnp.where(mask[:, None], x, v)) for v in (value, 1.0)
    )
    assert_close((ours[0], ours[1][0].cell.params), (want[0], want[1][0].cell.params))
    assert_close(ours[1][1], want[1][1])


@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 3), (2, 0, 3), (2, 4, 0, 3)])
def test_a_batch_of_nothing_leaves_the_statistics(shape):
    norm = nn.BatchNorm.of().init(KEY, ox.ArraySpec(shape[1:]))
    norm = norm.replace(mean=jnp.arange(3.0), variance=jnp.full(3, 2.0))
    ys, new = ox.batch_call_and_update(norm, jnp.ones(shape), training=True)
    assert ys.shape == shape
    np.testing.assert_array_equal(new.mean, norm.mean)
    np.testing.assert_array_equal(new.variance, norm.variance)


@bad
def test_singular_vectors_survive_a_kernel_that_is_restored(value):
    x = jnp.ones(3)
    model = nn.SpectralNorm.of(nn.Dense.of(2)).init(KEY, x)
    broken = model.layer.replace(kernel=model.layer.kernel.at[0, 0].set(value))
    after = model.replace(layer=broken).update(x, training=True).replace(layer=model.layer)
    np.testing.assert_array_equal(after.u, model.u)
    np.testing.assert_allclose(after(x, training=False), model(x, training=False), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-35, 1e-30, 1e-23, 1e-15, 1.0, 1e15, 1e19, 1e30])
def test_kernels_of_any_size_are_normalized(size):
    x, eye = jnp.ones(3), jnp.eye(3)
    dense = nn.Dense.of(4, use_bias=False).init(KEY, x)
    dense = dense.replace(kernel=size * dense.kernel)
    matrix = np.asarray(dense.kernel, np.float64)
    weight = nn.WeightNorm.of(dense).init(KEY, x)
    norms = np.linalg.norm(matrix, axis=0)
    np.testing.assert_allclose(weight.scale, norms, rtol=1e-5)
    unit = weight.replace(scale=jnp.ones(4))
    np.testing.assert_allclose(jax.vmap(unit)(eye), matrix / norms, rtol=1e-5, atol=1e-6)

    def loss(kernel):  # invariant to the size, so that the derivative is inversely proportional
        return jnp.sum(jnp.sin(unit.replace(layer=dense.replace(kernel=kernel))(x)))

    if 1e-30 < size < 1e30:  # beyond, the derivative leaves the range of float32
        one = matrix / size
        slope = jax.grad(loss)(dense.kernel) * size
        np.testing.assert_allclose(slope, jax.grad(loss)(jnp.asarray(one, "float32")), rtol=1e-4)
    model = nn.SpectralNorm.of(dense).init(KEY, x)
    for _ in range(5):
        model = model.update(x, training=True)
    kernel = jax.vmap(lambda x: model(x, training=False))(eye)
    np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, rtol=1e-3)


def test_columns_of_zeros_have_finite_derivatives():
    x = jnp.ones(3)
    model = nn.WeightNorm.of(nn.Dense.of(2)).init(KEY, x)
    model = model.replace(layer=model.layer.replace(kernel=jnp.zeros((3, 2))))
    grads = jax.grad(lambda m: m(x).sum())(model)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("per_feature", [False, True])
def test_the_slope_has_no_derivative_from_positive_infinity(per_feature):
    x = jnp.array([jnp.inf, 3.0, -2.0, 0.0])
    layer = nn.PReLU.of(per_feature=per_feature).init(KEY, x)
    slope = jax.grad(lambda layer: layer(x).sum())(layer).slope
    np.testing.assert_array_equal(slope, jnp.array([0.0, 0.0, -2.0, 0.0]) if per_feature else -2.0)
    np.testing.assert_array_equal(layer(x), jnp.array([jnp.inf, 3.0, -0.5, 0.0]))
    assert jnp.isnan(layer(jnp.full(4, jnp.nan))).all()
    np.testing.assert_array_equal(
        jax.grad(lambda x: layer(x).sum())(x), jnp.array([1.0, 1.0, 0.25, 1.0])
    )
