"""Checks of layers that are made or changed without a template."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox
from oryxstate import nn
from oryxstate._errors import InputError

KEY = jax.random.key(0)
X = jnp.ones((4, 6))
KERNEL = jnp.ones((3, 6, 2))

LAYERS = {
    "Dropout": nn.Dropout(0.5),
    "DropPath": nn.DropPath(0.5),
    "GaussianNoise": nn.GaussianNoise(0.5),
    "RotaryPosition": nn.RotaryPosition(),
    "Reshape": nn.Reshape((2, -1)),
    "MaxPool": nn.MaxPool(2),
    "AdaptiveAvgPool": nn.AdaptiveAvgPool(2),
    "BatchNorm": nn.BatchNorm.of().init(KEY, X),
    "LayerNorm": nn.LayerNorm.of().init(KEY, X),
    "RMSNorm": nn.RMSNorm.of().init(KEY, X),
    "GroupNorm": nn.GroupNorm.of(2).init(KEY, X),
    "InstanceNorm": nn.InstanceNorm.of().init(KEY, X),
    "EMA": nn.EMA.of(nn.Dense.of(2)).init(KEY, X),
    "Shared": nn.Shared.of(nn.Dense.of(6), 2).init(KEY, X),
    "Repeat": nn.Repeat.of(nn.Dense.of(6), 2).init(KEY, X),
    "MLP": nn.MLP.of((2,)).init(KEY, X),
    "RNN": nn.RNN.of(nn.GRUCell.of(2)).init(KEY, X),
    "SpectralNorm": nn.SpectralNorm.of(nn.Dense.of(2)).init(KEY, X),
    "WeightNorm": nn.WeightNorm.of(nn.Dense.of(2)).init(KEY, X),
    "Conv": nn.Conv(KERNEL, None),
    "ConvTranspose": nn.ConvTranspose(KERNEL, None),
    "DepthwiseConv": nn.DepthwiseConv(KERNEL, None),
    "MultiHeadAttention": nn.MultiHeadAttention.of(2, causal=True).init(KEY, X),
}
LAYERS["CachedAttention"] = LAYERS["MultiHeadAttention"].cached(4)

WRONG = [
    *[
        (layer, {"rate": rate}, rf"{layer}: `rate` must be in \[0, 1\), got {text}")
        for layer in ("Dropout", "DropPath")
        for rate, text in [(1.0, "1.0"), (-1.0, "-1.0"), (float("nan"), "nan"), ("half", "'half'")]
    ],
    ("GaussianNoise", {"stddev": -1.0}, "GaussianNoise: `stddev` must not be negative, got -1.0"),
    ("GaussianNoise", {"stddev": "one"}, "GaussianNoise: `stddev` must not be negative, got 'one'"),
    ("RotaryPosition", {"base": 0.0}, "RotaryPosition: `base` must be a positive number, got 0.0"),
    ("RotaryPosition", {"base": float("inf")}, "`base` must be a positive number, got inf"),
    ("Reshape", {"shape": (-1, -1)}, "Reshape: lengths must not be negative, but for one -1"),
    ("MaxPool", {"dilation": 0}, "MaxPool: `dilation` must be a positive integer, got 0"),
    ("AdaptiveAvgPool", {"output_size": 0}, "`output_size` must be a positive integer, got 0"),
    ("BatchNorm", {"momentum": 1.0}, r"BatchNorm: `momentum` must be in \[0, 1\), got 1.0"),
    ("LayerNorm", {"axes": (0,)}, r"LayerNorm: `axes` of a layer are a tuple, .* got \(0,\)"),
    ("LayerNorm", {"axes": (-1, -2)}, r"in order, such as \(-2, -1\), got \(-1, -2\)"),
    ("RMSNorm", {"axes": -1}, r"RMSNorm: `axes` of a layer are a tuple, .*`RMSNorm.of\(axes\)`"),
    ("GroupNorm", {"groups": 0}, "GroupNorm: `groups` must be a positive integer, got 0"),
    ("InstanceNorm", {"groups": -1}, "InstanceNorm: `groups` must be a positive integer, got -1"),
    *[
        (layer, {"epsilon": -1e-5}, f"{layer}: `epsilon` must not be negative, got -1e-05")
        for layer in ("BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm")
    ],
    ("EMA", {"decay": 1.0}, r"EMA: `decay` must be in \[0, 1\), got 1.0"),
    ("Shared", {"count": 0}, "Shared: `count` must be a positive integer, got 0"),
    ("Repeat", {"count": 1.0}, "Repeat: `count` must be a positive integer, got 1.0"),
    ("MLP", {"activation": 3}, "MLP: `activation` is a function, got 3"),
    ("SpectralNorm", {"iterations": 0}, "`iterations` must be a positive integer, got 0"),
    ("SpectralNorm", {"field": "weight"}, "SpectralNorm needs a layer with a parameter `weight`"),
    ("WeightNorm", {"field": "weight"}, "WeightNorm needs a layer with a parameter `weight`"),
    *[
        (layer, setting, text)
        for layer in ("Conv", "ConvTranspose", "DepthwiseConv")
        for setting, text in [
            ({"strides": 0}, f"{layer}: `strides` must be a positive integer, got 0"),
            ({"dilation": (1, 0)}, f"{layer}: `dilation` must be a positive integer, got 0"),
            ({"groups": 0}, f"{layer}: `groups` must be a positive integer, got 0"),
            ({"padding": "FULL"}, f"{layer}: `padding` must be 'SAME', 'VALID', 'CIRCULAR'"),
        ]
    ],
    *[
        (layer, setting, f"{layer}: {text}")
        for layer in ("MultiHeadAttention", "CachedAttention")
        for setting, text in [
            ({"heads": 0}, "`heads` must be a positive integer, got 0"),
            ({"kv_heads": 3}, "`kv_heads` must divide the number of heads, 2, got 3"),
            ({"heads": 4}, "`heads` must divide the features of `query`, 6, got 4"),
            ({"rotary_base": -1.0}, "`rotary_base` must be a positive number, got -1.0"),
        ]
    ],
]


def constructed(layer, fields):
    """The layer from its fields, as a user of the constructor makes it."""
    return type(layer)(**{**layer.params, **own_state(layer), **layer.info, **fields})


def own_state(layer):
    return {name: getattr(layer, name) for name in type(layer).__layout__.state}


@pytest.mark.parametrize("name, fields, text", WRONG)
def test_what_a_template_refuses_is_refused(name, fields, text):
    layer = LAYERS[name]
    for make in (constructed, lambda layer, fields: layer.replace(**fields)):
        with pytest.raises((ValueError, TypeError), match=text):
            make(layer, fields)


@pytest.mark.parametrize("name", LAYERS)
def test_what_it_takes_is_not(name):
    layer = LAYERS[name]
    for same in (constructed(layer, {}), layer.replace(**layer.info)):
        assert jax.tree.structure(same) == jax.tree.structure(layer)


def test_a_cell_is_needed_to_run():
    with pytest.raises(TypeError, match="RNN runs a recurrent cell, with `step` and `zero_carry`"):
        nn.RNN(nn.Dense.of(2).init(KEY, X))


def test_bases_of_templates():
    with pytest.raises(ValueError, match="RotaryPosition: `base` must be a positive number"):
        nn.RotaryPosition.of(-1.0)
    with pytest.raises(ValueError, match="`rotary_base` must be a positive number, got 0"):
        nn.MultiHeadAttention.of(2, rotary_base=0)
    with pytest.raises(ValueError, match="rotary: `base` must be a positive number, got -2"):
        nn.rotary(X, jnp.arange(4), -2)


NORMS = {
    "BatchNorm": nn.BatchNorm.of,
    "LayerNorm": nn.LayerNorm.of,
    "RMSNorm": nn.RMSNorm.of,
    "GroupNorm": partial(nn.GroupNorm.of, 2),
    "InstanceNorm": nn.InstanceNorm.of,
}


@pytest.mark.parametrize("name", NORMS)
def test_epsilons_of_templates(name):
    for epsilon in (-1e-5, float("nan"), "small"):
        with pytest.raises(ValueError, match=f"{name}: `epsilon` must not be negative, got"):
            NORMS[name](epsilon=epsilon)


def test_half_of_a_partitioned_attention_can_be_changed():
    fields = {"heads": 3, "kv_heads": 3, "name": "attention"}
    params, rest = (half.replace(**fields) for half in ox.partition(LAYERS["MultiHeadAttention"]))
    merged = ox.merge(params, rest)
    assert (merged.heads, merged.name) == (3, "attention") and merged(X).shape == X.shape
    with pytest.raises(ValueError, match="`kv_heads` must divide the number of heads, 2, got 3"):
        rest.replace(heads=2)


# Dtypes of inputs ---------------------------------------------------------------------------------

MASK = jnp.ones((4, 2), bool)
POOLS = {
    "MaxPool": nn.MaxPool(2),
    "SumPool": nn.SumPool(2),
    "AvgPool": nn.AvgPool(2),
    "AdaptiveMaxPool": nn.AdaptiveMaxPool(2),
    "AdaptiveAvgPool": nn.AdaptiveAvgPool(2),
    "GlobalMaxPool": nn.GlobalMaxPool(),
    "GlobalAvgPool": nn.GlobalAvgPool(),
}


@pytest.mark.parametrize("name", POOLS)
def test_masks_are_no_numbers_to_pool(name):
    text = rf"{name} takes (real )?numbers \(a mask as `mask.astype\(jnp.float32\)`\), but got bool"
    with pytest.raises(InputError, match=text):
        POOLS[name](MASK)
    with pytest.raises(InputError, match=text):
        type(POOLS[name]).of(**POOLS[name].info).init(KEY, MASK)


@pytest.mark.parametrize("name", [name for name in POOLS if "Max" in name])
def test_complex_numbers_have_no_maximum(name):
    with pytest.raises(InputError, match=f"{name} takes real numbers .* but got complex64"):
        POOLS[name](MASK.astype("complex64"))


@pytest.mark.parametrize("layer", [nn.Dropout, nn.DropPath, nn.GaussianNoise])
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_noise_refuses_integers_in_either_mode(layer, dtype):
    """As it would return floats during training alone."""
    x, text = jnp.ones(3, dtype), f"{layer.__name__} takes floating-point numbers, but got {dtype}"
    for training in (False, True):
        with pytest.raises(InputError, match=text):
            layer(0.5)(x, training=training, rng=KEY)
    with pytest.raises(InputError, match=text):
        layer.of(0.5).init(KEY, x)


@pytest.mark.parametrize("layer", [nn.Dropout, nn.DropPath, nn.GaussianNoise])
def test_numbers_of_numpy_do_not_change_the_dtype(layer):
    y = layer(np.float32(0.5))(jnp.ones(3, "bfloat16"), training=True, rng=KEY)
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_rotary_refuses_integers(dtype):
    with pytest.raises(ValueError, match=rf"floating-point numbers.*got {dtype}\. Convert them"):
        nn.rotary(jnp.ones((2, 4), dtype), jnp.arange(2))


def test_batch_norm_refuses_integers():
    with pytest.raises(InputError, match=r"BatchNorm takes floats, but got int32\[3\]"):
        nn.BatchNorm.of().init(KEY, jnp.arange(3))
    norm = nn.BatchNorm.of(use_scale=False, use_bias=False).init(KEY, jnp.ones(3))
    for training in (False, True):
        with pytest.raises(InputError, match=r"BatchNorm takes floats \[..., 3\], but got int32"):
            ox.batch_call(norm, jnp.ones((2, 3), int), training=training)
    with pytest.raises(InputError, match=r"takes floats \[..., 3\], but got float32\[4\]"):
        norm(jnp.ones(4), training=False)
