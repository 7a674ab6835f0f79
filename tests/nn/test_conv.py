"""Convolutions and their gradients, compared with their formulas in 1 to 3 dimensions."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import (
    KEY,
    KINDS,
    Conv,
    DepthwiseConv,
    SeparableConv,
    assert_same,
    draw,
    each,
    in_equinox,
    made,
    of,
    slow_conv,
)

from oryxstate import ArraySpec, nn
from oryxstate.nn import _pool

# What the input and the kernel are, the configuration, and the padding of each axis by hand.
CONVS = {
    "1-D": ((7, 3), 3, {}, [(0, 0)]),
    "1-D strided, dilated": ((9, 2), (3,), {"strides": 2, "dilation": [2]}, [(0, 0)]),
    "1-D causal": ((6, 2), 3, {"padding": [(2, 0)]}, [(2, 0)]),
    "2-D": ((5, 6, 2), (3, 2), {}, [(0, 0), (0, 0)]),
    "2-D same, strided": ((5, 6, 2), 3, {"padding": "SAME", "strides": (2, 3)}, [(1, 1), (0, 0)]),
    "2-D same, even kernel": ((4, 5, 2), (2, 4), {"padding": "SAME"}, [(0, 1), (1, 2)]),
    "2-D integer padding": ((4, 4, 2), [3, 3], {"padding": 2}, [(2, 2), (2, 2)]),
    "2-D pairs": ((4, 4, 2), 3, {"padding": ((1, 2), (0, 1))}, [(1, 2), (0, 1)]),
    "2-D groups": ((4, 4, 4), 2, {"groups": 2}, [(0, 0), (0, 0)]),
    "2-D all": (
        (7, 6, 4),
        (3, 2),
        {"groups": 2, "strides": [2, 1], "dilation": (1, 2), "padding": 1},
        [(1, 1), (1, 1)],
    ),
    "3-D": ((3, 4, 3, 2), 2, {}, [(0, 0)] * 3),
    "3-D all": (
        (4, 3, 4, 2),
        (2, 1, 2),
        {"strides": (2, 1, 1), "dilation": (2, 1, 1), "padding": ((1, 0), (0, 0), (0, 2))},
        [(1, 0), (0, 0), (0, 2)],
    ),
}


@pytest.mark.parametrize("name", CONVS)
def test_conv_is_its_formula(name):
    shape, size, options, pads = CONVS[name]
    layer, x = made(Conv.of(4, size, **options), shape)
    known = {k: v for k, v in options.items() if k != "padding"}
    expected = slow_conv(x, layer.kernel, layer.bias, pads=pads, **known)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert layer.spec(x).shape == expected.shape


@pytest.mark.parametrize("name", CONVS)
def test_conv_and_its_gradients_are_those_of_equinox(name):
    shape, size, options, pads = CONVS[name]
    layer, x = made(Conv.of(4, size, **options), shape)
    axes = len(shape) - 1
    theirs = eqx.nn.Conv(
        axes,
        shape[-1],
        4,
        each(size, axes),
        stride=each(options.get("strides", 1), axes),
        padding=pads,
        dilation=each(options.get("dilation", 1), axes),
        groups=options.get("groups", 1),
        key=KEY,
    )
    assert_same(of(layer), in_equinox(theirs), (layer.kernel, layer.bias, x))


CIRCULAR = [
    ((5, 2), 3, 1, 1, [(1, 1)]),
    ((6, 2), 4, 2, 1, [(1, 2)]),
    ((3, 2), 3, 1, 4, [(4, 4)]),  # reaches around more than once
    ((4, 5, 2), (3, 2), (1, 2), (2, 1), [(2, 2), (0, 1)]),
    ((3, 3, 2, 2), 3, 1, 1, [(1, 1)] * 3),
]


@pytest.mark.parametrize("shape, size, strides, dilation, pads", CIRCULAR)
def test_circular_padding_is_periodic(shape, size, strides, dilation, pads):
    template = Conv.of(2, size, strides, "CIRCULAR", dilation=dilation)
    layer, x = made(template, shape)
    known = {"strides": strides, "dilation": dilation, "pads": pads}
    expected = slow_conv(x, layer.kernel, layer.bias, mode="wrap", **known)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    axes = len(shape) - 1
    theirs = eqx.nn.Conv(
        axes, 2, 2, size, strides, pads, dilation, padding_mode="CIRCULAR", key=KEY
    )
    assert_same(of(layer), in_equinox(theirs), (layer.kernel, layer.bias, x))


def test_circular_convolution_commutes_with_rolling():
    layer, x = made(Conv.of(3, 4, padding="CIRCULAR"), (6, 2))
    np.testing.assert_allclose(
        layer(jnp.roll(x, 2, 0)), jnp.roll(layer(x), 2, 0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_conv_treats_each_channel_by_itself(multiplier):
    layer, x = made(DepthwiseConv.of((3, 2), 2, multiplier=multiplier), (5, 6, 3))
    assert layer.kernel.shape == (3, 2, 1, 3 * multiplier)
    outs = []
    for c in range(3):
        own = slice(c * multiplier, (c + 1) * multiplier)
        alone = Conv(layer.kernel[..., own], layer.bias[own], strides=2)
        outs.append(alone(x[..., c : c + 1]))
    np.testing.assert_allclose(layer(x), jnp.concatenate(outs, -1), rtol=1e-5, atol=1e-6)
    theirs = eqx.nn.Conv(2, 3, 3 * multiplier, (3, 2), 2, groups=3, key=KEY)
    assert_same(of(layer), in_equinox(theirs), (layer.kernel, layer.bias, x))


def test_separable_conv_is_depthwise_then_pointwise():
    template = SeparableConv.of(5, [3, 3], padding="SAME", multiplier=2, dilation=2)
    layer, x = template.init(KEY, ArraySpec((5, 4, 3))), draw(1, (5, 4, 3))
    assert layer.depthwise.bias is None and layer.depthwise.kernel.shape == (3, 3, 1, 6)
    assert layer.pointwise.bias.shape == (5,) and layer.pointwise.kernel.shape == (1, 1, 6, 5)
    kernel = jnp.zeros((3, 3, 3, 5))
    for m in range(6):  # the one full kernel that both amount to
        part = (
            layer.depthwise.kernel[:, :, 0, m, None] * layer.pointwise.kernel[0, 0, m][None, None]
        )
        kernel = kernel.at[:, :, m // 2].add(part)
    full = Conv(kernel, layer.pointwise.bias, padding="SAME", dilation=2)
    np.testing.assert_allclose(layer(x), full(x), rtol=1e-5, atol=1e-5)


def test_parts_of_a_separable_conv_have_keys_of_their_own():
    layer = SeparableConv.of(1, 1, use_bias=False).init(KEY, ArraySpec((3, 1)))
    assert layer.pointwise.bias is None
    assert layer.depthwise.kernel.shape == layer.pointwise.kernel.shape == (1, 1, 1)
    assert layer.depthwise.kernel != layer.pointwise.kernel


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_dtypes(kind, dtype):
    x = draw(1, (4, 4, 3))
    full = KINDS[kind]().init(KEY, x)
    mixed = KINDS[kind](dtype=dtype).init(KEY, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(mixed)} == {"float32"}
    assert mixed(x).dtype == dtype
    np.testing.assert_allclose(mixed(x).astype("float32"), full(x), atol=0.1, rtol=0.1)
    grads = jax.grad(lambda m: m(x).astype(jnp.float32).sum())(mixed)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(grads)} == {"float32"}
    narrow = KINDS[kind](param_dtype=dtype).init(KEY, x.astype(dtype))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(narrow)} == {dtype}
    assert jax.grad(lambda x: narrow(x).sum())(x.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_vmap(kind):
    layer = KINDS[kind]().init(KEY, ArraySpec((4, 4, 3)))
    xs = draw(1, (2, 4, 4, 3))
    expected = jnp.stack([layer(x) for x in xs])
    np.testing.assert_allclose(jax.jit(jax.vmap(layer))(xs), expected, rtol=1e-5, atol=1e-5)


def test_initializers_draw_kernel_and_bias():
    def kernel_init(key, shape, dtype):
        return jnp.full(shape, 2, dtype)

    template = Conv.of(2, 3, kernel_init=kernel_init, bias_init=jax.nn.initializers.ones)
    layer = template.init(KEY, ArraySpec((3, 1)))
    np.testing.assert_array_equal(layer(jnp.ones((3, 1))), jnp.full((1, 2), 7.0))
    bare = Conv.of(2, 3, use_bias=False).init(KEY, ArraySpec((3, 1)))
    assert bare.bias is None and len(jax.tree.leaves(bare)) == 1


@pytest.mark.parametrize("groups", [1, 8])
def test_a_new_convolution_keeps_the_variance(groups):
    template = Conv.of(64, 3, padding="CIRCULAR", groups=groups)
    x = draw(1, (16, 16, 32))
    assert 0.8 < template.init(KEY, x)(x).var() < 1.25


def test_layers_print_what_is_configured():
    layer = Conv.of(4, [3, 3], strides=[2, 1]).init(KEY, ArraySpec((5, 5, 2)))
    assert repr(layer) == "Conv(kernel=f32[3,3,2,4], bias=f32[4], strides=(2, 1))"


def test_a_network_of_them():
    model = (
        Conv.of(4, 3, padding="SAME")
        >> jax.nn.relu
        >> _pool.MaxPool.of(2)
        >> SeparableConv.of(4, 2)
        >> nn.Flatten.of()
        >> nn.Dense.of(2)
    ).init(KEY, ArraySpec((6, 6, 1)))
    grads = jax.grad(lambda m: m(draw(1, (6, 6, 1))).sum())(model)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    with pytest.raises(ValueError, match=r"Conv at 'layers\[0\]' takes \[height, width, 1\]"):
        model(jnp.ones((6, 6, 2)))
