"""Convolutions that are refused: when, and with which text."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from convolutions import (
    KEY,
    KINDS,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    SeparableConv,
)

from oryxstate import ArraySpec

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
