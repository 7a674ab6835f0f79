"""Parity of convolutions and pools with Flax, with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

from oryxstate import ArraySpec
from oryxstate.nn._conv import Conv
from oryxstate.nn._conv_transpose import ConvTranspose
from oryxstate.nn._pool import AvgPool, MaxPool, SumPool
from oryxstate.nn._separable import DepthwiseConv

KEY = jax.random.key(0)


def draw(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def each(value, axes):
    return (value,) * axes if isinstance(value, int) else tuple(value)


def assert_same(ours, theirs, *inputs):
    """The same output, and the same gradients for one direction of it."""

    def pulled(function, *inputs):
        out, pull = jax.vjp(function, *inputs)
        return out, pull(draw(3, out.shape))

    run = jax.jit(pulled, static_argnums=0)
    pairs = zip(*(jax.tree.leaves(run(f, *inputs)) for f in (ours, theirs)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def assert_same_layer(template, module, shape):
    layer = template.init(KEY, ArraySpec(shape))
    assert_same(
        lambda kernel, bias, x: layer.replace(kernel=kernel, bias=bias)(x),
        lambda kernel, bias, x: module.apply({"params": {"kernel": kernel, "bias": bias}}, x),
        layer.kernel,
        draw(2, layer.bias.shape),
        draw(1, shape),
    )


CONVS = [
    ((7, 3), (3,), {"strides": 2, "dilation": 2}),
    ((6, 2), (4,), {"padding": "CIRCULAR", "strides": 2}),
    ((5, 6, 4), (3, 2), {"padding": "SAME", "groups": 2, "strides": (2, 3)}),
    ((5, 6, 2), (3, 2), {"padding": "CIRCULAR", "dilation": (2, 1)}),
    ((4, 5, 2), (2, 3), {"padding": ((1, 2), (0, 1))}),
    ((4, 5, 2), (3, 3), {"padding": 1}),
    ((3, 4, 3, 2), (2, 2, 2), {"padding": "SAME"}),
]


@pytest.mark.parametrize("shape, size, options", CONVS)
def test_conv(shape, size, options):
    known = {"padding": "VALID", **options}
    module = linen.Conv(
        4,
        size,
        known.get("strides", 1),
        known["padding"],
        kernel_dilation=known.get("dilation", 1),
        feature_group_count=known.get("groups", 1),
    )
    assert_same_layer(Conv.of(4, size, **options), module, shape)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_conv(multiplier):
    module = linen.Conv(3 * multiplier, (2, 3), feature_group_count=3)
    template = DepthwiseConv.of((2, 3), padding="SAME", multiplier=multiplier)
    assert_same_layer(template, module, (4, 5, 3))


TRANSPOSES = [
    ((4, 2), (3,), {"strides": (2,), "padding": "SAME"}),
    ((3, 2), (2,), {"strides": (4,)}),
    ((3, 2), (2,), {"strides": (4,), "padding": "SAME"}),
    ((3, 4, 2), (3, 2), {"dilation": (2, 1), "strides": (1, 2)}),
    ((4, 2), (3,), {"padding": "CIRCULAR"}),
    ((4, 2), (6,), {"padding": "CIRCULAR", "strides": (2,)}),
    ((3, 2), (4,), {"padding": "CIRCULAR", "strides": (3,)}),
    ((3, 2), (2,), {"padding": "CIRCULAR", "strides": (3,)}),
    ((2, 2), (7,), {"padding": "CIRCULAR"}),
    ((3, 4, 2), (2, 3), {"padding": "CIRCULAR", "dilation": (1, 2)}),
    ((2, 2, 2, 2), (2, 3, 2), {"strides": (2, 1, 1)}),
]


@pytest.mark.parametrize("shape, size, options", TRANSPOSES)
def test_conv_transpose(shape, size, options):
    known = {"padding": "VALID", **options}
    module = linen.ConvTranspose(
        4,
        size,
        known.get("strides"),
        known["padding"],
        kernel_dilation=known.get("dilation"),
    )
    assert_same_layer(ConvTranspose.of(4, size, **options), module, shape)


def test_numbers_pad_the_convolution_but_in_flax_the_transpose():
    module = linen.ConvTranspose(4, (3,), (2,), ((2 - 1, 2 - 0),))
    template = ConvTranspose.of(4, 3, 2, padding=((1, 0),))
    assert_same_layer(template, module, (4, 2))


POOLS = [
    ((6, 3), (2,), (2,), "VALID"),
    ((5, 4, 2), (3, 2), (1, 2), "SAME"),
    ((5, 4, 2), (3, 2), (2, 1), ((1, 2), (0, 1))),
    ((3, 4, 3, 2), (2, 2, 2), (1, 2, 1), "SAME"),
]


@pytest.mark.parametrize("shape, window, strides, padding", POOLS)
def test_pools(shape, window, strides, padding):
    x = draw(1, shape)
    ours = (window, strides, padding)
    assert_same(MaxPool(*ours), lambda x: linen.max_pool(x, *ours), x)
    assert_same(AvgPool(*ours), lambda x: linen.avg_pool(x, *ours, count_include_pad=False), x)
    assert_same(SumPool(*ours), lambda x: linen.pooling.pool(x, 0.0, lax.add, *ours), x)


def test_new_kernels_are_drawn_alike():
    layer = Conv.of(64, 3).init(KEY, ArraySpec((8, 8, 16)))
    params = linen.Conv(64, (3, 3)).init(KEY, jnp.ones((8, 8, 16)))["params"]
    assert layer.kernel.shape == params["kernel"].shape
    assert layer.kernel.std() == pytest.approx(float(params["kernel"].std()), rel=0.05)
