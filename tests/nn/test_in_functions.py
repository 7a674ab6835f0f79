"""Layers inside functions that are modules, with their keywords (S10, S13)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
X = jnp.ones(4)
XS = jax.random.normal(KEY, (6, 4)) + 1


def network(x, init_key=None):
    keys = jax.random.split(init_key, 3)
    h = ox.init(nn.Dense.of(4), name="first")(keys[0], x)(x)
    h = ox.init(nn.BatchNorm.of(momentum=0.5) >> nn.Dropout.of(0.5))(keys[1], h)(h)
    return ox.init(nn.Dense.of(2))(keys[2], h)(h)


def two_unnamed(x, init_key=None):
    h = ox.init(nn.Dense.of(4))(init_key, x)(x)
    return ox.init(nn.Dense.of(4))(jax.random.fold_in(init_key, 1), h)(h)


def test_layers_are_modules_of_the_function():
    module = ox.init(network)(KEY, X)
    assert list(module.modules) == ["first", "serial", "dense"]
    assert module.first.kernel.shape == (4, 4) and module.dense.kernel.shape == (4, 2)


def test_unnamed_layers_are_numbered():
    """Two of a kind collided in the reference (W34)."""
    module = ox.init(two_unnamed)(KEY, X)
    assert list(module.modules) == ["dense", "dense_1"]
    want = module.dense_1(module.dense(X))
    for run in both(ox.call):
        np.testing.assert_allclose(run(module, X), want, atol=1e-6)


def test_keywords_reach_the_layers_of_a_function():
    module = ox.init(network)(KEY, X)
    h = jax.vmap(module.first)(XS)

    def train(module, x):
        return ox.call_and_update(module, x, training=True, rng=KEY)

    for run in both(jax.vmap(train, (None, 0), (0, None))):
        ys, new = run(module, XS)
        np.testing.assert_allclose(new.serial.layers[0].mean, 0.5 * h.mean(0), atol=1e-6)
        assert len({bytes(np.asarray(y)) for y in ys}) == 6
    assert ox.call(module, X, training=False).shape == (2,)


def test_a_vmap_inside_the_function_keeps_the_keywords():
    """W47: it dropped `training=False`."""

    def mapped(xs, init_key=None):
        norm = ox.init(nn.BatchNorm.of(momentum=0.5))(init_key, xs[0])
        return jax.vmap(lambda x: norm(x))(xs)

    module = ox.init(mapped)(KEY, XS)
    for run in both(lambda m, xs: ox.call_and_update(m, xs, training=False)):
        ys, new = run(module, XS)
        np.testing.assert_allclose(ys, XS / np.sqrt(1 + 1e-5), rtol=1e-5)
        assert (new.batchnorm.mean == 0).all()
    _, new = ox.call_and_update(module, XS, training=True)
    np.testing.assert_allclose(new.batchnorm.mean, 0.5 * XS.mean(0), atol=1e-6)


def test_keywords_reach_a_function_inside_a_model():
    class Model(ox.Module):
        f: ox.FunctionModule

        def call(self, xs):
            return jax.vmap(lambda x: self.f(x))(xs)

    model = Model(ox.init(network)(KEY, X))
    ys = model(XS, training=False)
    want = jax.vmap(lambda x: ox.call(model.f, x, training=False))(XS)
    np.testing.assert_allclose(ys, want, atol=1e-6)
    with pytest.raises(TypeError, match=r"BatchNorm at 'serial\.layers\[0\]' needs `training`"):
        model.f(X)


def test_the_function_takes_what_it_names_itself():
    def scaled(x, init_key=None, *, training=False, scale=1.0):
        norm = ox.init(nn.Dropout.of(0.5))(init_key, x)
        return norm(x) * scale * (2.0 if training else 1.0)

    module = ox.init(scaled)(KEY, X)
    np.testing.assert_allclose(ox.call(module, X, training=False, scale=3.0), 3 * X)
    y = ox.call(module, X, training=True, rng=KEY)
    assert set(np.asarray(y).tolist()) <= {0.0, 4.0}
    with pytest.raises(TypeError, match=r"neither function `scaled` nor a module in it.*`scal`"):
        ox.call(module, X, training=False, scal=3.0)
    with pytest.raises(TypeError, match=r"neither function `network` nor a module in it.*`rgn`"):
        ox.init(network)(KEY, X, rgn=KEY)


# Containers ---------------------------------------------------------------------------------------


def test_keywords_reach_the_layers_of_a_list():
    """Each member gets what it takes, and a key of its own."""
    parts = [nn.Dense.of(4), jnp.tanh, nn.Dropout.of(0.5), nn.Dropout.of(0.5)]
    model = ox.init(parts)(KEY, X)
    assert isinstance(model[0], nn.Dense) and isinstance(model[2], nn.Dropout)
    want = jnp.tanh(model[0](X))
    np.testing.assert_allclose(ox.call(model, X, training=False), want, atol=1e-6)
    for run in both(lambda m, x: ox.call(m, x, training=True, rng=KEY)):
        y = run(model, X)
        ratios = np.asarray(y / want).round(4)
        assert set(ratios.tolist()) <= {0.0, 4.0}


def test_members_draw_apart():
    x = jnp.ones(64)
    for container in (
        (nn.Dropout(0.5), nn.Dropout(0.5)),
        {"a": nn.Dropout(0.5), "b": nn.Dropout(0.5)},
    ):
        one, two = jax.tree.leaves(ox.call(container, x, training=True, rng=KEY))
        assert (one != two).any()


def test_keywords_of_a_tuple_go_to_those_that_take_them():
    model = ox.init((nn.Dense.of(2), nn.BatchNorm.of()))(KEY, X)
    (y, z), _ = ox.call_and_update(model, X, training=False)
    assert y.shape == (2,) and z.shape == (4,)
