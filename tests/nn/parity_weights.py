"""Weights of Equinox and Flax: equal outputs, from them and to them."""

from __future__ import annotations

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import oryxstate as ox
from oryxstate import mapping, nn

KEY = jax.random.key(0)


def drawn(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def redrawn(tree):
    """Arrays like others, of positive numbers, so that they may be variances."""
    leaves, structure = jax.tree.flatten(tree)
    new = [
        0.5 + jnp.abs(drawn(*x.shape, seed=i)) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, new)


def ours(template, x):
    inputs = x if isinstance(x, tuple) else (x,)
    return template.init(KEY, *inputs)


def run(model, x):
    keywords = {"training": False} if isinstance(model, nn.BatchNorm) else {}
    return model(*x, **keywords) if isinstance(x, tuple) else model(x, **keywords)


def assert_close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def assert_same_arrays(back, source):
    assert set(back) == set(source)
    for path, value in source.items():
        np.testing.assert_array_equal(back[path], value, err_msg=path)


def arrays_of(module):
    return {k: v for k, v in ox.named_leaves(module).items() if eqx.is_array(v)}


def first_channels(layer):
    return lambda x: jnp.moveaxis(layer(jnp.moveaxis(x, -1, 0)), 0, -1)


IMAGE, STEPS, VECTOR = drawn(6, 7, 4), drawn(5, 8), drawn(4)
EQUINOX = {
    "Linear": (nn.Dense.of(3), eqx.nn.Linear(4, 3, key=KEY), VECTOR, None),
    "Conv": (
        nn.Conv.of(6, (3, 2), groups=2),
        eqx.nn.Conv2d(4, 6, (3, 2), groups=2, key=KEY),
        IMAGE,
        first_channels,
    ),
    "ConvTranspose": (
        nn.ConvTranspose.of(6, (3, 2), strides=2, padding=0),
        eqx.nn.ConvTranspose2d(4, 6, (3, 2), stride=2, key=KEY),
        IMAGE,
        first_channels,
    ),
    "LayerNorm": (nn.LayerNorm.of(), eqx.nn.LayerNorm(4), VECTOR, None),
    "RMSNorm": (nn.RMSNorm.of(epsilon=1e-5), eqx.nn.RMSNorm(4, use_bias=False), VECTOR, None),
    "GroupNorm": (nn.GroupNorm.of(2), eqx.nn.GroupNorm(2, 4), IMAGE, first_channels),
    "Embedding": (nn.Embedding.of(5, 4), eqx.nn.Embedding(5, 4, key=KEY), jnp.array(3), None),
    "PReLU": (nn.PReLU.of(), eqx.nn.PReLU(), VECTOR, None),
    "WeightNorm": (
        nn.WeightNorm.of(nn.Conv.of(6, (3, 2))),
        eqx.nn.WeightNorm(eqx.nn.Conv2d(4, 6, (3, 2), key=KEY)),
        IMAGE,
        first_channels,
    ),
    "MultiheadAttention": (
        nn.MultiHeadAttention.of(2),
        eqx.nn.MultiheadAttention(
            2,
            8,
            use_query_bias=True,
            use_key_bias=True,
            use_value_bias=True,
            use_output_bias=True,
            key=KEY,
        ),
        STEPS,
        lambda layer: lambda x: layer(x, x, x),
    ),
    "GRUCell": (
        nn.GRUCell.of(3),
        eqx.nn.GRUCell(4, 3, key=KEY),
        VECTOR,
        lambda cell: lambda x: cell(x, jnp.zeros(3)),
    ),
    "LSTMCell": (
        nn.LSTMCell.of(3),
        eqx.nn.LSTMCell(4, 3, key=KEY),
        VECTOR,
        lambda cell: lambda x: cell(x, (jnp.zeros(3), jnp.zeros(3)))[0],
    ),
}


@pytest.mark.parametrize("name", EQUINOX)
def test_equinox(name):
    template, theirs, x, call = EQUINOX[name]
    params, rest = eqx.partition(theirs, eqx.is_array)
    theirs = eqx.combine(redrawn(params), rest)
    model = ours(template, x)
    rules = nn.equinox_mapping(model)
    loaded = ox.load_weights(model, theirs, rules)
    assert_close(run(loaded, x), (call(theirs) if call else theirs)(x))
    assert_same_arrays(ox.weights(loaded, mapping.inverse(rules)), arrays_of(theirs))


def test_equinox_batch_norm():
    """Its statistics are in Equinox's `State`."""
    theirs, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="ema")
    params, rest = eqx.partition(theirs, eqx.is_inexact_array)
    theirs = eqx.nn.inference_mode(eqx.combine(redrawn(params), rest))
    mean, variance = drawn(4), 0.5 + jnp.abs(drawn(4, seed=2))
    state = state.set(theirs.ema_state_index, (mean, variance))
    source = {"weight": theirs.weight, "bias": theirs.bias, "mean": mean, "variance": variance}
    model = ours(nn.BatchNorm.of(), VECTOR)
    rules = nn.equinox_mapping(model)
    loaded = ox.load_weights(model, source, rules)
    assert_close(run(loaded, VECTOR), theirs(VECTOR, state)[0])
    assert_same_arrays(ox.weights(loaded, mapping.inverse(rules)), source)


@pytest.mark.parametrize("kind", ["Dense", "Conv"])
def test_equinox_spectral_norm(kind):
    """Its vectors are in Equinox's `State`."""
    template, inner, x = {
        "Dense": (nn.Dense.of(3), eqx.nn.Linear(4, 3, key=KEY), VECTOR),
        "Conv": (nn.Conv.of(6, (3, 2)), eqx.nn.Conv2d(4, 6, (3, 2), key=KEY), IMAGE),
    }[kind]
    theirs, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(inner, "weight", key=KEY)
    u, v = state.get(theirs.uv_index)
    source = {**arrays_of(eqx.filter(theirs.layer, eqx.is_array)), "u": u, "v": v}
    source = {k if k in "uv" else f"layer.{k}": value for k, value in source.items()}
    model = ours(nn.SpectralNorm.of(template), x)
    rules = nn.equinox_mapping(model)
    loaded = ox.load_weights(model, source, rules)
    layer = eqx.nn.inference_mode(theirs)

    def call(x):
        return layer(x, state)[0]

    expected = call(x) if kind == "Dense" else first_channels(call)(x)
    assert_close(loaded(x, training=False), expected)
    assert_same_arrays(ox.weights(loaded, mapping.inverse(rules)), source)


def batched(layer, variables, x):
    return layer.apply(variables, x[None])[0]


def plain(layer, variables, x):
    return layer.apply(variables, x)


def zero_carry(layer, variables, x):
    return layer.apply(variables, layer.initialize_carry(KEY, x.shape), x)[1]


LINEN = {
    "Dense": (nn.Dense.of(3), linen.Dense(3), VECTOR, plain),
    "Conv": (
        nn.Conv.of(6, (3, 2), groups=2),
        linen.Conv(6, (3, 2), padding="VALID", feature_group_count=2),
        IMAGE,
        plain,
    ),
    "ConvTranspose": (
        nn.ConvTranspose.of(6, (3, 2), strides=2, padding="SAME"),
        linen.ConvTranspose(6, (3, 2), strides=(2, 2)),
        IMAGE,
        plain,
    ),
    "BatchNorm": (nn.BatchNorm.of(), linen.BatchNorm(use_running_average=True), VECTOR, plain),
    "LayerNorm": (nn.LayerNorm.of(), linen.LayerNorm(epsilon=1e-5), VECTOR, plain),
    "RMSNorm": (nn.RMSNorm.of(), linen.RMSNorm(epsilon=1e-5), VECTOR, plain),
    "GroupNorm": (nn.GroupNorm.of(2), linen.GroupNorm(2, epsilon=1e-5), IMAGE, batched),
    "Embedding": (nn.Embedding.of(5, 4), linen.Embed(5, 4), jnp.array(3), plain),
    "PReLU": (nn.PReLU.of(), linen.PReLU(), VECTOR, plain),
    "WeightNorm": (
        nn.WeightNorm.of(nn.Conv.of(6, (3, 2))),
        linen.WeightNorm(linen.Conv(6, (3, 2), padding="VALID")),
        IMAGE,
        plain,
    ),
    "MultiHeadAttention": (
        nn.MultiHeadAttention.of(2),
        linen.MultiHeadDotProductAttention(2),
        STEPS,
        plain,
    ),
    "SimpleCell": (nn.SimpleRNNCell.of(3), linen.SimpleCell(3), VECTOR, zero_carry),
    "GRUCell": (nn.GRUCell.of(3), linen.GRUCell(3), VECTOR, zero_carry),
    "LSTMCell": (nn.LSTMCell.of(3), linen.LSTMCell(3), VECTOR, zero_carry),
    "OptimizedLSTMCell": (nn.LSTMCell.of(3), linen.OptimizedLSTMCell(3), VECTOR, zero_carry),
    "RNN": (nn.RNN.of(nn.GRUCell.of(3)), linen.RNN(linen.GRUCell(3)), STEPS, plain),
    "Bidirectional": (
        nn.Bidirectional.of(nn.LSTMCell.of(3)),
        linen.Bidirectional(linen.RNN(linen.LSTMCell(3)), linen.RNN(linen.LSTMCell(3))),
        STEPS,
        plain,
    ),
}


@pytest.mark.parametrize("name", LINEN)
def test_linen(name):
    template, theirs, x, call = LINEN[name]
    if call is zero_carry:
        variables = theirs.init(KEY, theirs.initialize_carry(KEY, x.shape), x)
    else:
        variables = theirs.init(KEY, x[None] if call is batched else x)
    variables = redrawn(variables)
    model = ours(template, x)
    rules = nn.flax_mapping(model)
    loaded = ox.load_weights(model, variables, rules)
    assert_close(run(loaded, x), call(theirs, variables, x))
    back = ox.weights(loaded, mapping.inverse(rules))
    assert_same_arrays(back, mapping.convert(flat(variables), []))


def flat(tree, above=""):
    found = {}
    for key, value in tree.items():
        path = f"{above}.{key}" if above else str(key)
        found |= flat(value, path) if isinstance(value, dict) else {path: value}
    return found


def step_of(cell, x):
    return cell(cell.initialize_carry(x.shape, nnx.Rngs(0)), x)[1]


RNGS = nnx.Rngs(0)
NNX = {
    "Linear": (nn.Dense.of(3), nnx.Linear(4, 3, rngs=RNGS), VECTOR, None),
    "Conv": (
        nn.Conv.of(6, (3, 2)),
        nnx.Conv(4, 6, (3, 2), padding="VALID", rngs=RNGS),
        IMAGE,
        None,
    ),
    "ConvTranspose": (
        nn.ConvTranspose.of(6, (3, 2), strides=2, padding="SAME"),
        nnx.ConvTranspose(4, 6, (3, 2), strides=(2, 2), rngs=RNGS),
        IMAGE,
        None,
    ),
    "BatchNorm": (
        nn.BatchNorm.of(),
        nnx.BatchNorm(4, use_running_average=True, rngs=RNGS),
        VECTOR,
        None,
    ),
    "LayerNorm": (nn.LayerNorm.of(), nnx.LayerNorm(4, epsilon=1e-5, rngs=RNGS), VECTOR, None),
    "RMSNorm": (nn.RMSNorm.of(), nnx.RMSNorm(4, epsilon=1e-5, rngs=RNGS), VECTOR, None),
    "GroupNorm": (
        nn.GroupNorm.of(2),
        nnx.GroupNorm(4, 2, epsilon=1e-5, rngs=RNGS),
        IMAGE,
        lambda layer, x: layer(x[None])[0],
    ),
    "Embedding": (nn.Embedding.of(5, 4), nnx.Embed(5, 4, rngs=RNGS), jnp.array(3), None),
    "PReLU": (nn.PReLU.of(), nnx.PReLU(), VECTOR, None),
    "WeightNorm": (
        nn.WeightNorm.of(nn.Conv.of(6, (3, 2))),
        nnx.WeightNorm(nnx.Conv(4, 6, (3, 2), padding="VALID", rngs=RNGS), rngs=RNGS),
        IMAGE,
        None,
    ),
    "RNN": (
        nn.RNN.of(nn.GRUCell.of(3)),
        nnx.RNN(nnx.GRUCell(4, 3, rngs=RNGS), rngs=RNGS),
        drawn(5, 4),
        None,
    ),
    "Bidirectional": (
        nn.Bidirectional.of(nn.LSTMCell.of(3)),
        nnx.Bidirectional(
            nnx.RNN(nnx.LSTMCell(4, 3, rngs=RNGS), rngs=RNGS),
            nnx.RNN(nnx.LSTMCell(4, 3, rngs=RNGS), rngs=RNGS),
            rngs=RNGS,
        ),
        drawn(5, 4),
        None,
    ),
    "MultiHeadAttention": (
        nn.MultiHeadAttention.of(2),
        nnx.MultiHeadAttention(2, 8, decode=False, rngs=RNGS),
        STEPS,
        None,
    ),
    "SimpleCell": (nn.SimpleRNNCell.of(3), nnx.SimpleCell(4, 3, rngs=RNGS), VECTOR, step_of),
    "GRUCell": (nn.GRUCell.of(3), nnx.GRUCell(4, 3, rngs=RNGS), VECTOR, step_of),
    "LSTMCell": (nn.LSTMCell.of(3), nnx.LSTMCell(4, 3, rngs=RNGS), VECTOR, step_of),
    "Sequential": (
        nn.Dense.of(3) >> jax.nn.relu >> nn.Dense.of(2),
        nnx.Sequential(nnx.Linear(4, 3, rngs=RNGS), jax.nn.relu, nnx.Linear(3, 2, rngs=RNGS)),
        VECTOR,
        None,
    ),
}


@pytest.mark.parametrize("name", NNX)
def test_nnx(name):
    template, theirs, x, call = NNX[name]
    kinds = nnx.Param, nnx.BatchStat
    graph, params, rest = nnx.split(theirs, nnx.Any(*kinds), ...)
    theirs = nnx.merge(graph, redrawn(params), rest)
    source = nnx.to_pure_dict(nnx.state(theirs, nnx.Any(*kinds)))
    model = ours(template, x)
    rules = nn.nnx_mapping(model)
    loaded = ox.load_weights(model, source, rules)
    assert_close(run(loaded, x), theirs(x) if call is None else call(theirs, x))
    back = ox.weights(loaded, mapping.inverse(rules))
    assert_same_arrays(back, mapping.convert(flat(source), []))
