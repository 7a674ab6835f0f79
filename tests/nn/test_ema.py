"""Averages of parameters: the formula, its place in the state, and accumulated gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hosts import both, close

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
X = jnp.array([0.5, -1.0, 2.0])
NET = nn.Dense.of(4) >> nn.BatchNorm.of() >> nn.Dropout.of(0.5) >> nn.Dense.of(2)


def batch(seed=1, size=8):
    return jax.random.normal(jax.random.key(seed), (size, 3))


def test_average_of_parameters():
    """Held in the state, updated while training, used when not."""
    model = nn.EMA.of(nn.Dense.of(2), decay=0.75).init(KEY, X)
    close(model(X, training=False), model.layer(X))
    kernel = np.asarray(model.layer.kernel)
    average = kernel
    call = partial(ox.call_and_update, training=True)
    for step, run in enumerate(both(call) + both(call)):
        moved = model.layer.replace(kernel=jnp.asarray(kernel * (step + 2)))
        y, model = run(model.replace(layer=moved), X)
        average = 0.75 * average + 0.25 * kernel * (step + 2)
        close(y, moved(X))
        np.testing.assert_allclose(
            model(X, training=False), X @ average + model.layer.bias, rtol=1e-5
        )
        np.testing.assert_allclose(model.average.kernel, average, rtol=1e-5)
    params, rest = ox.partition(model)
    slope = jax.grad(lambda p: ox.call(ox.merge(p, rest), X, training=True).sum())(params)
    close(slope.layer.kernel, jnp.broadcast_to(X[:, None], (3, 2)))
    assert slope.shadow == {"kernel": None, "bias": None} and slope.count is None


def test_the_average_is_like_what_is_learned():
    model = nn.EMA.of(NET).init(KEY, X)
    params, _ = ox.partition(model.layer)
    assert jax.tree.structure(model.average) == jax.tree.structure(params)
    close(model.average, params)
    assert list(ox.named_leaves(model.average)) == list(ox.named_leaves(params))
    assert set(model.shadow) == set(ox.named_leaves(params))
    _, new = ox.batch_call_and_update(model, batch(), training=True, rng=KEY)
    assert jax.tree.structure(new) == jax.tree.structure(model)
    merged = ox.merge(new.average, ox.partition(new.layer)[1])
    close(
        ox.batch_call(merged, batch(), training=False), ox.batch_call(new, batch(), training=False)
    )


def test_the_averaged_model_is_that_of_evaluation():
    model = nn.EMA.of(NET, 0.5).init(KEY, X)
    moved = jax.tree.map(lambda x: 2 * x, model.layer)
    _, model = ox.batch_call_and_update(model.replace(layer=moved), batch(), training=True, rng=KEY)
    averaged = model.averaged()
    assert type(averaged) is nn.Serial and averaged[1].mean is model.layer[1].mean
    for run in both(partial(ox.batch_call, training=False)):
        close(run(averaged, batch()), run(model, batch()))
    assert not np.allclose(averaged[0].kernel, model.layer[0].kernel)

    class Host(ox.Module):
        ema: nn.EMA

        def call(self, x):
            return self.ema.averaged()(x, training=False)

    for run in both(ox.call):
        close(run(Host(model), X), averaged(X, training=False))


def test_the_averaged_model_has_the_dtypes_of_the_model():
    x = X.astype("bfloat16")
    model = nn.EMA.of(nn.Dense.of(2, param_dtype="bfloat16"), 0.999).init(KEY, x)
    up = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), model.layer)
    step = partial(ox.update, training=True)
    new, _ = jax.lax.scan(lambda m, _: (step(m, x), None), model.replace(layer=up), length=2000)
    assert new.average.bias.dtype == jnp.float32
    np.testing.assert_allclose(new.average.bias, 1 - 0.999**2000, rtol=1e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves(new.averaged())} == {jnp.dtype("bfloat16")}
    assert new(x, training=False).dtype == jnp.bfloat16


def loss(model, xs):
    ys, model = ox.batch_call_and_update(model, xs, training=True)
    return jnp.square(ys - 1).mean(), model


def trained(model, optimizer, batches):
    @jax.jit
    def step(model, state, xs):
        gradient, model = ox.grad(loss, has_aux=True)(model, xs)
        params, rest = ox.partition(model)
        updates, state = optimizer.update(gradient, state, params)
        return ox.merge(optax.apply_updates(params, updates), rest), state

    state = optimizer.init(ox.partition(model)[0])
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps promotes its counters
        for xs in batches:
            model, state = step(model, state, xs)
    return model


@pytest.mark.parametrize("micro", [2, 3])
def test_accumulated_gradients_give_the_average_of_large_batches(micro):
    """With `every`, the average counts the optimizer's updates and not the calls."""
    batches = [batch(seed, 6) for seed in range(4)]
    small = [part for xs in batches for part in jnp.split(xs, micro)]
    made = partial(nn.EMA.of, nn.Dense.of(2), 0.5)
    large = trained(made().init(KEY, X), optax.sgd(0.3), batches)
    optimizer = optax.MultiSteps(optax.sgd(0.3), micro)
    accumulated = trained(made(every=micro).init(KEY, X), optimizer, small)
    close(accumulated.layer, large.layer)
    close(accumulated.average, large.average)
    wrong = trained(made().init(KEY, X), optimizer, small)
    assert not np.allclose(wrong.average.kernel, large.average.kernel, atol=1e-3)


def test_the_first_of_each_calls_updates_the_average():
    model = nn.EMA.of(nn.Dense.of(2), 0.5, every=3).init(KEY, X)
    moved = model.replace(layer=model.layer.replace(bias=jnp.ones(2)))
    step = partial(ox.update, training=True)
    seen = []
    for run in [*both(step), step, step, step]:
        moved = run(moved, X)
        seen.append((int(moved.count), float(moved.average.bias[0])))
    assert seen == [(1, 0.5), (2, 0.5), (0, 0.5), (1, 0.75), (2, 0.75)]
    assert int(moved.update(X, training=False).count) == 2

    def scanned(model, xs):
        return jax.lax.scan(lambda m, x: (step(m, x), None), model, xs)[0]

    again = jax.jit(scanned)(moved, jnp.stack([X] * 4))
    assert (int(again.count), float(again.average.bias[0])) == (0, 0.875)


def test_wrong_configurations():
    with pytest.raises(ValueError, match="EMA: `every` must be a positive integer, got 0"):
        nn.EMA.of(nn.Dense.of(2), every=0)
    model = nn.EMA.of(nn.Dense.of(2)).init(KEY, X)
    with pytest.raises(ValueError, match=r"EMA: `decay` must be in \[0, 1\), got 1"):
        nn.EMA(model.layer, model.shadow, model.count, decay=1)
    with pytest.raises(ValueError, match="EMA: `every` must be a positive integer, got True"):
        nn.EMA(model.layer, model.shadow, model.count, every=True)
