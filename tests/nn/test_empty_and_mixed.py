"""Inputs without steps, examples or features, and inputs of several dtypes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attentions import FEATURES, KINDS, TIME, assert_close, kinds, made, sequence
from catalogue import CATALOGUE

import oryxstate as ox
from oryxstate import nn
from oryxstate._module._takes import taken_inside

KEY = jax.random.key(0)

SEQUENCES = {
    "attention": nn.MultiHeadAttention.of(2),
    "causal, rotary, grouped": nn.MultiHeadAttention.of(
        4, kv_heads=2, causal=True, rotary_base=10.0
    ),
    "cached": nn.CachedAttention.of(nn.MultiHeadAttention.of(2, causal=True), 4),
    "block": nn.TransformerBlock.of(nn.MultiHeadAttention.of(2), nn.MLP.of((8,))),
    "rnn": nn.RNN.of(nn.LSTMCell.of(3)),
    "bidirectional": nn.Bidirectional.of(nn.GRUCell.of(3)),
    "group norm": nn.GroupNorm.of(2),
    "instance norm": nn.InstanceNorm.of(),
    "layer norm": nn.LayerNorm.of(),
    "norm over time": nn.LayerNorm.of((-2, -1), use_scale=False, use_bias=False),
    "dense": nn.Dense.of(3),
    "sinusoidal": nn.SinusoidalPosition.of(),
    "rotary": nn.RotaryPosition.of(),
    "noise": nn.GaussianNoise.of(0.5),
    "lora": nn.LoRA.of(nn.Dense.of(3), 2),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_no_steps(name):
    """The layer is made for some steps or for none; outputs and gradients are those of nothing."""
    none = jnp.zeros((0, 8))
    for given in (sequence(), none):
        model = SEQUENCES[name].init(KEY, given)
        more = {"training": True, "rng": KEY} if name == "noise" else {}
        y, new = model.call_and_update(none, **more)
        assert y.shape[0] == 0 and y.shape == model.spec(none).shape
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
        grads = ox.grad(lambda m, more=more: m(none, **more).sum())(model)
        assert all(not leaf.any() for leaf in jax.tree.leaves(grads))


@kinds
def test_a_cache_goes_on_after_no_steps(kind):
    layer, x = made(causal=True, **KINDS[kind]), sequence()
    cached = layer.cached(TIME).update(x[:0]).update(x[:2]).update(x[:0])
    assert int(cached.length) == 2
    assert_close(cached(x[2:]), layer(x)[2:])


def test_no_context():
    layer, x = made(sequence(), sequence()), sequence()
    assert_close(layer(x, x[:0]), jnp.stack([layer.out.bias] * TIME))
    assert_close(layer(x, x[:0], jnp.ones((TIME, 0), bool)), layer(x, x[:0]))


STATEFUL = ["BatchNorm", "BatchNorm with spatial axes", "ResNetBlock", "EMA", "SpectralNorm"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", STATEFUL)
def test_no_examples(name, training):
    model = ox.init(CATALOGUE[name].template)(KEY, *CATALOGUE[name].specs)
    assert "training" in taken_inside(model)
    xs = jnp.zeros((0, *CATALOGUE[name].specs[0].shape))
    ys, new = ox.batch_call_and_update(model, xs, training=training)
    assert ys.shape == (0, *model.spec(*CATALOGUE[name].specs).shape)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))


EMPTY = {
    "Dense": nn.Dense.of(2),
    "Dense by fan-in": nn.Dense.of(2, kernel_init=jax.nn.initializers.he_normal()),
    "MLP": nn.MLP.of((3, 2)),
    "LoRA": nn.LoRA.of(nn.Dense.of(2), 1),
    "WeightNorm": nn.WeightNorm.of(nn.Dense.of(2)),
    "SpectralNorm": nn.SpectralNorm.of(nn.Dense.of(2)),
    "SimpleRNNCell": nn.SimpleRNNCell.of(2),
    "GRUCell": nn.GRUCell.of(2),
    "LSTMCell": nn.LSTMCell.of(2),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_features(name):
    """An input of no features adds nothing to the biases."""
    x = jnp.zeros(0)
    model = EMPTY[name].init(KEY, x)
    y, new = model.call_and_update(x, **({"training": True} if name == "SpectralNorm" else {}))
    np.testing.assert_array_equal(y, jnp.zeros(2))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))


@pytest.mark.parametrize("layer", [nn.BatchNorm, nn.LayerNorm, nn.RMSNorm])
def test_norms_of_no_features(layer):
    norm = layer.of().init(KEY, jnp.zeros((3, 0)))
    more = {"training": False} if layer is nn.BatchNorm else {}
    assert norm(jnp.zeros((3, 0)), **more).shape == (3, 0)


@pytest.mark.parametrize(
    "template, text",
    [
        (nn.MultiHeadAttention.of(2, head_features=2), "with at least one feature"),
        (nn.GroupNorm.of(2), "several elements to average over in each group"),
        (nn.Conv.of(2, 1), "some channels|channels"),
    ],
)
def test_layers_that_need_features_say_so(template, text):
    with pytest.raises(ValueError, match=f"{template.layer.__name__} takes .*({text}).*but got"):
        template.init(KEY, jnp.zeros((3, 0)))


@pytest.mark.parametrize("param_dtype", ["bfloat16", "float32"])
def test_a_context_of_another_dtype_is_promoted(param_dtype):
    x, context = sequence().astype("bfloat16"), sequence(2, (3, 5))
    with jax.numpy_dtype_promotion("standard"):
        template = nn.MultiHeadAttention.of(2, param_dtype=param_dtype)
        layer = template.init(KEY, x, context)
        y = layer(x, context)
        assert y.dtype == layer.spec(x, context).dtype == jnp.float32
        wide = layer(x.astype("float32"), context)
        np.testing.assert_allclose(y, wide, atol=0.05)
        assert layer(x, context.astype("bfloat16")).dtype == jnp.result_type(x, layer.out.kernel)
    template = nn.MultiHeadAttention.of(2, dtype="bfloat16", param_dtype=param_dtype)
    assert template.init(KEY, x, context)(x, context).dtype == jnp.bfloat16


def test_a_full_cache_has_room_for_no_more_steps():
    cached = made(causal=True).cached(2).update(sequence()[:2])
    full = jax.jit(ox.update)(cached, sequence()[:1])
    assert int(full.length) == 3
    text = r"takes \[time, 8\] of at most 0 more steps, since max_length is 2, but got float32\[1,8"
    with pytest.raises(ValueError, match=text):
        full(sequence()[:1])
    assert full(sequence()[:0]).shape == (0, FEATURES)
