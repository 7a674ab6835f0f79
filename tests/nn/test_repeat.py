"""Repeated, shared and wrapped layers, compared with what they stand for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equations import counted
from hosts import both, close

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
X = jnp.array([0.5, -1.0, 2.0])
XS = jax.random.normal(KEY, (4, 3))


class Shift(nn.Layer):
    """Adds a parameter, and counts."""

    shift: jax.Array = ox.param()
    count: jax.Array = ox.state()

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams(
            params={"shift": jax.random.normal(init_key, in_spec.shape)},
            state={"count": jnp.zeros((), jnp.int32)},
        )

    def call(self, x):
        self.assign(count=self.count + 1)
        return jnp.sin(x + self.shift) * self.count.astype(x.dtype)


class Holder(ox.Module):
    """Calls a layer in a call of its own."""

    inner: nn.Layer

    def call(self, x):
        return self.inner(self.inner(x))


@pytest.mark.parametrize("remat", [False, True])
def test_repeat_is_a_loop_over_layers(remat):
    model = nn.Repeat.of(Shift.of(), 3, remat=remat).init(KEY, X)
    assert len({bytes(np.asarray(s)) for s in model.layers.shift}) == 3, "each is drawn by itself"
    h, layers = X, [jax.tree.map(lambda leaf, i=i: leaf[i], model.layers) for i in range(3)]
    for i, layer in enumerate(layers):
        h, layers[i] = layer.call_and_update(h)
    for run in both(ox.call_and_update):
        y, new = run(model, X)
        close(y, h)
        close(new.layers, jax.tree.map(lambda *leaf: jnp.stack(leaf), *layers))


@pytest.mark.parametrize("remat", [False, True])
def test_repeat_inside_a_call_is_updated_each_time(remat):
    model = nn.Repeat.of(Shift.of(), 3, remat=remat).init(KEY, X)
    for run in both(ox.call_and_update):
        y, new = run(Holder(model), X)
        once, twin = model.call_and_update(X)
        again, twin = twin.call_and_update(once)
        close((y, new.inner), (again, twin))
        assert new.inner.layers.count.tolist() == [2, 2, 2]


def test_gradient_of_repeat():
    model = nn.Repeat.of(nn.Residual.of(nn.Dense.of(3) >> jnp.tanh), 3).init(KEY, X)
    again = model.replace(remat=True)
    want = jax.grad(lambda m: unrolled(m, X).sum())(model)
    for m in (model, again):
        for run in both(jax.grad(lambda m: m(X).sum())):
            for got, expected in zip(*map(jax.tree.leaves, (run(m), want)), strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-5)


def unrolled(model, x):
    for i in range(model.count):
        x = jax.tree.map(lambda leaf, i=i: leaf[i], model.layers)(x)
    return x


def test_keywords_and_keys_reach_repeated_layers():
    block = nn.Residual.of(nn.BatchNorm.of(momentum=0.5) >> nn.Dropout.of(0.5))
    model = nn.Repeat.of(block, 2).init(KEY, X)

    def train(model, x):
        return model.call_and_update(x, training=True, rng=KEY)

    over = jax.vmap(train, (None, 0), (0, None))
    for run in both(over):
        ys, new = run(model, XS)
        means = new.layers.body.layers[0].mean
        np.testing.assert_allclose(means[0], 0.5 * XS.mean(0), atol=1e-6)
        assert not np.allclose(means[1], means[0])
        assert len({bytes(np.asarray(y)) for y in ys}) == 4
    close(model(X, training=False), unrolled_off(model, X))


def unrolled_off(model, x):
    for i in range(model.count):
        x = jax.tree.map(lambda leaf, i=i: leaf[i], model.layers)(x, training=False)
    return x


def test_a_deep_transformer_is_no_larger_a_program():
    """Forward, gradient and update: 24 blocks as 2."""

    def program(count):
        attention = nn.MultiHeadAttention.of(2, causal=True, rotary_base=100.0)
        block = nn.TransformerBlock.of(attention, nn.MLP.of((16, 8)), dropout=0.1)
        x = jnp.ones((4, 8))
        model = (nn.Repeat.of(block, count, remat=True) >> nn.RMSNorm.of()).init(KEY, x)

        def loss(model, x):
            y, model = model.call_and_update(x, training=True, rng=KEY)
            return jnp.square(y).sum(), model

        return counted(jax.make_jaxpr(ox.value_and_grad(loss, has_aux=True))(model, x))

    assert program(24) == program(2)


def test_repeated_dropout_draws_anew():
    model = nn.Repeat.of(nn.Dropout.of(0.5), 3).init(KEY, jnp.ones(4096))
    kept = (model(jnp.ones(4096), training=True, rng=KEY) > 0).mean()
    assert abs(kept - 1 / 8) < 0.03


def test_shared_is_one_layer_called_again():
    model = nn.Shared.of(Shift.of(), 3).init(KEY, X)
    h, layer = X, model.layer
    for _ in range(3):
        h, layer = layer.call_and_update(h)
    for run in both(ox.call_and_update):
        y, new = run(model, X)
        close((y, new.layer), (h, layer))


@pytest.mark.parametrize("kind", [nn.Repeat, nn.Shared])
def test_a_layer_that_changes_the_shape_cannot_be_repeated(kind):
    text = rf"{kind.__name__} takes a layer that returns float32\[3\], as it takes, but got float"
    with pytest.raises(ValueError, match=text):
        kind.of(nn.Dense.of(2), 3).init(KEY, X)


def test_low_rank_adaptation():
    dense = nn.Dense.of(4).init(KEY, X)
    model = nn.LoRA.of(dense, 2, alpha=4.0).init(KEY, X)
    close(model(X), dense(X))
    model = model.replace(up=jax.random.normal(KEY, (2, 4)))
    want = X @ (dense.kernel + 2 * model.down @ model.up) + dense.bias
    np.testing.assert_allclose(model(X), want, atol=1e-5)
    np.testing.assert_allclose(model.merged()(X), want, atol=1e-5)
    learned = ox.named_leaves(ox.partition(model)[0])
    assert list(learned) == ["down", "up"]
    with pytest.raises(TypeError, match="LoRA adapts a Dense layer, got Dropout"):
        nn.LoRA.of(nn.Dropout.of(0.5), 2).init(KEY, X)
