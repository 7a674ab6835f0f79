"""Transposed convolutions and their gradients, compared with their formula."""

from __future__ import annotations

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from convolutions import (
    KEY,
    Conv,
    ConvTranspose,
    assert_same,
    draw,
    each,
    in_equinox,
    made,
    of,
    slow_transpose,
)
from jax import lax

from oryxstate import ArraySpec

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


PURE_LAX = """
import jax, jax.numpy as jnp
def loss(kernel, x):
    return jax.lax.conv_transpose(x, kernel, ({stride},), "VALID", ({dilation},)).sum()
x, kernel = jnp.ones((1, 4, 2)), jnp.ones(({size}, 2, 4))
jax.block_until_ready(jax.jit(jax.grad(loss))(kernel, x))
"""


def xla_aborts(**sizes):
    """Whether JAX without this library ends the process, as with some jaxlib 0.10.2."""
    if jaxlib.__version__ != "0.10.2":
        return False
    run = subprocess.run([sys.executable, "-c", PURE_LAX.format(**sizes)], capture_output=True)
    assert run.returncode <= 0, run.stderr.decode()
    return run.returncode < 0


@pytest.mark.parametrize("size, stride, dilation", [(3, 1, 2), (3, 2, 3), (2, 3, 2), (2, 1, 4)])
def test_kernel_gradients_of_dilated_kernels(size, stride, dilation):
    """Where XLA can compile them; the known limit is in the changelog."""
    layer, x = made(ConvTranspose.of(4, size, stride, dilation=dilation), (4, 2))
    if xla_aborts(size=size, stride=stride, dilation=dilation):
        return
    weights = draw(5, layer.spec(x).shape)
    found = jax.jit(jax.grad(lambda kernel: (weights * of(layer)(kernel, layer.bias, x)).sum()))
    known = {"strides": stride, "dilation": dilation, "before": [0], "wrap": False}
    units = np.eye(layer.kernel.size).reshape(-1, *layer.kernel.shape)
    ys = [slow_transpose(x, u, np.zeros(4), lengths=weights.shape[:1], **known) for u in units]
    expected = [(np.asarray(weights, np.float64) * y).sum() for y in ys]
    np.testing.assert_allclose(found(layer.kernel).ravel(), expected, rtol=1e-4, atol=1e-5)
