"""What do the tests of convolutions share: formulas step by step, Equinox with our kernels."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import ArraySpec
from oryxstate.nn import _conv, _conv_transpose, _separable

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


def channels_first(kernel):
    return jnp.moveaxis(kernel, (-1, -2), (0, 1))


def in_equinox(module):
    """An Equinox convolution as a function of our parameters and input."""

    def run(kernel, bias, x):
        wide = bias.reshape(-1, *[1] * (x.ndim - 1))
        layer = eqx.tree_at(lambda m: (m.weight, m.bias), module, (channels_first(kernel), wide))
        return jnp.moveaxis(layer(jnp.moveaxis(x, -1, 0)), 0, -1)

    return run


KINDS = {
    "Conv": lambda **o: Conv.of(4, 2, **o),
    "ConvTranspose": lambda **o: ConvTranspose.of(4, 2, **o),
    "DepthwiseConv": lambda **o: DepthwiseConv.of(2, **o),
    "SeparableConv": lambda **o: SeparableConv.of(4, 2, **o),
}
