"""Are convolutions what their formulas say, in 1 to 3 dimensions, with their gradients?"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from oryxstate import ArraySpec, nn
from oryxstate.nn import _conv, _conv_transpose, _pool, _separable

KEY = jax.random.key(0)
Conv, ConvTranspose = _conv.Conv, _conv_transpose.ConvTranspose
DepthwiseConv, SeparableConv = _separable.DepthwiseConv, _separable.SeparableConv


def draw(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def made(template, shape):
    """A layer with a bias other than zero, and an input for it."""
    layer, x = template.init(KEY, ArraySpec(shape)), draw(1, shape)
    return layer.replace(bias=draw(2, layer.bias.shape)), x


def pulled(function, *inputs):
    """The output, and the gradients of all inputs for one direction of the output."""

    @jax.jit
    def run(*inputs):
        out, pull = jax.vjp(function, *inputs)
        return out, pull(draw(3, out.shape))

    return run(*inputs)


def assert_same(ours, theirs, inputs):
    for a, b in zip(*(jax.tree.leaves(pulled(f, *inputs)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def of(layer):
    """The layer as a function of its parameters and its input."""
    return lambda kernel, bias, x: layer.replace(kernel=kernel, bias=bias)(x)


def each(value, axes):
    return (value,) * axes if isinstance(value, int) else tuple(value)


def taps(kernel_size):
    return np.ndindex(*kernel_size)


def slow_conv(x, kernel, bias, *, strides=1, pads, dilation=1, groups=1, mode="constant"):
    """The formula of `Conv`, one place and one element of the kernel after the other."""
    x, kernel, bias = (np.asarray(a, np.float64) for a in (x, kernel, bias))
    axes = x.ndim - 1
    strides, dilation = each(strides, axes), each(dilation, axes)
    size, (inner, out) = kernel.shape[:axes], kernel.shape[axes:]
    x = np.pad(x, (*pads, (0, 0)), mode=mode)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    places = [(n - r) // s + 1 for n, r, s in zip(x.shape[:-1], reach, strides, strict=True)]
    y = np.zeros((*places, out))
    for i in np.ndindex(*places):
        for o in range(out):
            first = o // (out // groups) * inner
            for k in taps(size):
                at = tuple(np.multiply(i, strides) + np.multiply(k, dilation))
                y[(*i, o)] += x[at][first : first + inner] @ kernel[(*k, slice(None), o)]
    return y + bias


def slow_transpose(x, kernel, bias, *, strides=1, before, lengths, dilation=1, groups=1, wrap):
    """The formula of `ConvTranspose`: every input is added to the places that it reaches."""
    x, kernel, bias = (np.asarray(a, np.float64) for a in (x, kernel, bias))
    axes = x.ndim - 1
    strides, dilation = each(strides, axes), each(dilation, axes)
    size, (inner, out) = kernel.shape[:axes], kernel.shape[axes:]
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    y = np.zeros((*lengths, out))
    for i in np.ndindex(*x.shape[:-1]):
        for k in taps(size):
            place = np.multiply(i, strides) + np.subtract(reach, 1) - np.multiply(k, dilation)
            place = place - before
            place = place % lengths if wrap else place
            if np.all(place >= 0) and np.all(place < lengths):
                for o in range(out):
                    first = o // (out // groups) * inner
                    weights = kernel[(*k, slice(None), o)]
                    y[(*place, o)] += x[i][first : first + inner] @ weights
    return y + bias


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


def channels_first(kernel):
    return jnp.moveaxis(kernel, (-1, -2), (0, 1))


def in_equinox(module):
    """An Equinox convolution as a function of our parameters and input."""

    def run(kernel, bias, x):
        wide = bias.reshape(-1, *[1] * (x.ndim - 1))
        layer = eqx.tree_at(lambda m: (m.weight, m.bias), module, (channels_first(kernel), wide))
        return jnp.moveaxis(layer(jnp.moveaxis(x, -1, 0)), 0, -1)

    return run


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


# Shape, kernel, configuration, and by hand: what is cut off before, and the lengths of the output.
TRANSPOSES = {
    "1-D": ((4, 2), 3, {}, [0], [6]),
    "1-D strided": ((4, 2), 3, {"strides": 2}, [0], [9]),
    "1-D strides beyond the kernel": ((3, 2), 2, {"strides": 4}, [0], [12]),
    "1-D same": ((4, 2), 4, {"strides": 2, "padding": "SAME"}, [1], [8]),
    "1-D same, strides beyond the kernel": (
        (3, 2),
        2,
        {"strides": 3, "padding": "SAME"},
        [0],
        [9],
    ),
    "1-D integer": ((4, 2), 3, {"strides": 2, "padding": 1}, [1], [7]),
    "1-D cut more than the kernel": ((5, 2), 2, {"padding": [(2, 1)]}, [2], [3]),
    "1-D circular": ((4, 2), 3, {"padding": "CIRCULAR"}, [1], [4]),
    "1-D circular, strided": ((4, 2), 6, {"strides": 2, "padding": "CIRCULAR"}, [2], [8]),
    "1-D circular, a long kernel": ((2, 2), 7, {"padding": "CIRCULAR"}, [3], [2]),
    "1-D circular, strides beyond the kernel": (
        (3, 2),
        2,
        {"strides": 3, "padding": "CIRCULAR"},
        [0],
        [9],
    ),
    "2-D dilated": ((3, 4, 2), (2, 3), {"dilation": [2, 1], "strides": (1, 2)}, [0, 0], [5, 9]),
    "2-D groups": ((3, 3, 4), 2, {"groups": 2, "strides": 2}, [0, 0], [6, 6]),
    "2-D pairs": ((3, 3, 2), 3, {"padding": ((1, 0), (0, 2))}, [1, 0], [4, 3]),
    "3-D": ((2, 2, 3, 2), 2, {"strides": (1, 2, 1)}, [0, 0, 0], [3, 4, 4]),
}


@pytest.mark.parametrize("name", TRANSPOSES)
def test_conv_transpose_is_its_formula(name):
    shape, size, options, before, lengths = TRANSPOSES[name]
    layer, x = made(ConvTranspose.of(4, size, **options), shape)
    known = {k: v for k, v in options.items() if k != "padding"}
    known |= {"before": before, "lengths": lengths, "wrap": options.get("padding") == "CIRCULAR"}
    expected = slow_transpose(x, layer.kernel, layer.bias, **known)
    assert layer.spec(x).shape == expected.shape
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in TRANSPOSES if n != "1-D strides beyond the kernel"])
def test_conv_transpose_and_its_gradients_are_those_of_equinox(name):
    shape, size, options, *_ = TRANSPOSES[name]
    layer, x = made(ConvTranspose.of(4, size, **options), shape)
    axes, padding = len(shape) - 1, options.get("padding", "VALID")
    circular = padding == "CIRCULAR"
    theirs = eqx.nn.ConvTranspose(
        axes,
        shape[-1],
        4,
        each(size, axes),
        stride=each(options.get("strides", 1), axes),
        padding="SAME" if circular else padding,
        dilation=each(options.get("dilation", 1), axes),
        groups=options.get("groups", 1),
        padding_mode="CIRCULAR" if circular else "ZEROS",
        key=KEY,
    )
    assert_same(of(layer), in_equinox(theirs), (layer.kernel, layer.bias, x))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size, stride, dilation", [(3, 1, 1), (2, 4, 1), (5, 2, 1), (3, 2, 3)])
def test_conv_transpose_pads_as_jax_does(padding, size, stride, dilation):
    template = ConvTranspose.of(2, size, stride, padding, dilation=dilation, use_bias=False)
    layer, x = template.init(KEY, ArraySpec((4, 3))), draw(1, (4, 3))
    expected = lax.conv_transpose(x[None], layer.kernel, (stride,), padding, (dilation,))[0]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "SAME", "strides": 2},
        {"padding": ((1, 2), (0, 1)), "strides": 2, "dilation": (1, 2)},
        {"padding": "CIRCULAR", "dilation": 2},
    ],
    ids=repr,
)
def test_conv_transpose_is_the_transpose_of_conv(options):
    """Of the one with the flipped kernel, whose inputs are the outputs of the other."""
    transpose = ConvTranspose.of(2, 3, use_bias=False, **options).init(KEY, ArraySpec((3, 4, 5)))
    y = draw(1, (3, 4, 5))
    flipped = jnp.flip(transpose.kernel, (0, 1)).swapaxes(-1, -2)
    conv = Conv(flipped, None, **options)
    out = transpose(y)
    (expected,) = jax.linear_transpose(conv, jax.ShapeDtypeStruct(out.shape, out.dtype))(y)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


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


KINDS = {
    "Conv": lambda **o: Conv.of(4, 2, **o),
    "ConvTranspose": lambda **o: ConvTranspose.of(4, 2, **o),
    "DepthwiseConv": lambda **o: DepthwiseConv.of(2, **o),
    "SeparableConv": lambda **o: SeparableConv.of(4, 2, **o),
}


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


WRONG_CONFIGURATIONS = [
    (lambda: Conv.of(0, 3), "Conv: `features` must be a positive integer, got 0."),
    (lambda: Conv.of(2, (3, 0)), "Conv: `kernel_size` must be a positive integer, got 0."),
    (lambda: Conv.of(2, 3, strides=1.5), "Conv: `strides` must be a positive integer, got 1.5."),
    (lambda: Conv.of(2, 3, dilation=0), "Conv: `dilation` must be a positive integer, got 0."),
    (
        lambda: Conv.of(3, 3, groups=2),
        "Conv: `features` must be a multiple of `groups`, got 3 features in 2 groups.",
    ),
    (
        lambda: Conv.of(3, 3, padding="same"),
        "Conv: `padding` must be 'SAME', 'VALID', 'CIRCULAR', an integer, or a pair (before, "
        "after) for each spatial axis, none of them negative, got 'same'.",
    ),
    (lambda: Conv.of(3, 3, padding=-1), "none of them negative, got -1."),
    (lambda: Conv.of(3, (3, 3), padding=(1, 1)), "none of them negative, got (1, 1)."),
    (lambda: Conv.of(3, 3, padding=((1, 2, 3),)), "none of them negative, got ((1, 2, 3),)."),
    (
        lambda: Conv.of(3, (3, 3), strides=(1, 1, 1)),
        "Conv: `strides` is for 3 spatial axes, but `kernel_size` for 2.",
    ),
    (
        lambda: Conv.of(3, 3, dilation=(1, 1), padding=[(1, 1)]),
        "Conv: `padding` is for 1 spatial axes, but `dilation` for 2.",
    ),
    (
        lambda: Conv.of(3, (1, 1, 1, 1)),
        "Conv: `kernel_size` is for 4 spatial axes; 1 to 3 are possible.",
    ),
    (
        lambda: Conv.of(3, ()),
        "Conv: `kernel_size` is for 0 spatial axes; 1 to 3 are possible.",
    ),
    (
        lambda: ConvTranspose.of(3, 3, padding="FULL"),
        "ConvTranspose: `padding` must be 'SAME', 'VALID', 'CIRCULAR'",
    ),
    (
        lambda: DepthwiseConv.of(3, multiplier=0),
        "DepthwiseConv: `multiplier` must be a positive integer, got 0.",
    ),
    (
        lambda: SeparableConv.of(3, (3, -1)),
        "SeparableConv: `kernel_size` must be a positive integer, got -1.",
    ),
]


@pytest.mark.parametrize("make, text", WRONG_CONFIGURATIONS)
def test_wrong_configurations_are_refused_when_the_template_is_made(make, text):
    with pytest.raises(ValueError) as error:
        make()
    assert text in str(error.value)


WRONG_SPECS = [
    (
        Conv.of(2, 3),
        (5,),
        "Conv takes 1 to 3 spatial axes and channels last, [..., channels], but got float32[5].",
    ),
    (Conv.of(2, 3), (2, 2, 2, 2, 2), "but got float32[2,2,2,2,2]."),
    (
        Conv.of(2, (3, 3)),
        (5, 3),
        "Conv takes [height, width, channels], but got float32[5,3].",
    ),
    (
        Conv.of(2, 3, strides=(1, 1, 1)),
        (5, 5, 3),
        "Conv takes [depth, height, width, channels], but got float32[5,5,3].",
    ),
    (
        Conv.of(2, 1, groups=2),
        (5, 3),
        "Conv takes [length, a multiple of 2 channels], but got float32[5,3].",
    ),
    (Conv.of(2, 1), (5, 0), "Conv takes [length, channels], but got float32[5,0]."),
    (
        Conv.of(2, 3, dilation=2),
        (8, 4, 3),
        "Conv takes [height, width, 3] in which a window of 5 x 5 fits, but got float32[8,4,3].",
    ),
    (
        Conv.of(2, 5, padding=1),
        (2, 3),
        "Conv takes [length, 3] in which a window of 5 fits with padding ((1, 1),), but got "
        "float32[2,3].",
    ),
    (Conv.of(2, 1, padding="SAME"), (0, 3), "but got float32[0,3]."),
    (
        ConvTranspose.of(2, 2, padding=2),
        (3, 3),
        "ConvTranspose takes [length, 3] of which padding ((2, 2),) leaves any, but got "
        "float32[3,3].",
    ),
    (DepthwiseConv.of(2), (), "DepthwiseConv takes 1 to 3 spatial axes and channels last"),
    (DepthwiseConv.of((2, 2)), (5, 3), "DepthwiseConv takes [height, width, channels]"),
    (SeparableConv.of(2, 3), (2, 3), "DepthwiseConv at 'depthwise' takes [length, 3] in which"),
]


@pytest.mark.parametrize("template, shape, text", WRONG_SPECS)
def test_inputs_that_do_not_fit_are_refused_when_the_layer_is_made(template, shape, text):
    with pytest.raises(ValueError) as error:
        template.init(KEY, ArraySpec(shape))
    assert text in str(error.value)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "DepthwiseConv"])
@pytest.mark.parametrize("shape", [(), (4, 3), (4, 4, 2), (2, 4, 4, 3), (0, 4, 3)])
def test_wrong_shapes_are_refused_at_the_call(kind, shape):
    layer = KINDS[kind]().init(KEY, ArraySpec((4, 4, 3)))
    with pytest.raises(ValueError) as error:
        layer(jnp.ones(shape))
    assert str(error.value).startswith(f"{kind} takes [height, width, 3]")
    assert f"float32[{','.join(map(str, shape))}]." in str(error.value)


def test_several_inputs_are_refused():
    with pytest.raises(ValueError, match="Conv takes one array, but got"):
        Conv.of(2, 3).init(KEY, ArraySpec((4, 3)), ArraySpec((4, 3)))


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
