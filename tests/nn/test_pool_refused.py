"""Pools that are refused: when, and with which text."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from oryxstate import ArraySpec
from oryxstate.nn import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    SumPool,
)

KEY = jax.random.key(0)


WRONG_CONFIGURATIONS = [
    (lambda: MaxPool.of(0), "MaxPool: `window_shape` must be a positive integer, got 0."),
    (lambda: MaxPool((2, 1.0)), "MaxPool: `window_shape` must be a positive integer, got 1.0."),
    (lambda: SumPool.of(2, 0), "SumPool: `strides` must be a positive integer, got 0."),
    (
        lambda: AvgPool.of(2, padding="CIRCULAR"),
        "AvgPool: `padding` must be 'SAME', 'VALID', an integer, or a pair (before, after) for "
        "each spatial axis, none of them negative, got 'CIRCULAR'.",
    ),
    (
        lambda: AvgPool.of((2, 2), (1, 1, 1)),
        "AvgPool: `strides` is for 3 spatial axes, but `window_shape` for 2.",
    ),
    (
        lambda: AvgPool([2, 2, 2, 2]),
        "AvgPool: `window_shape` is for 4 spatial axes; 1 to 3 are possible.",
    ),
    (
        lambda: MaxPool.of((3, 2), padding=((1, 1), (0, 2))),
        "MaxPool: `padding` must be shorter than the window, or some windows hold nothing else; "
        "got padding ((1, 1), (0, 2)) of windows (3, 2).",
    ),
    (lambda: AvgPool(2, padding=2), "got padding 2 of windows 2."),
    (
        lambda: AvgPool(2, padding=3, dilation=2),
        "some windows hold nothing else; got padding 3 of windows 2.",
    ),
    (
        lambda: MaxPool.of(2, dilation=(1, 0)),
        "MaxPool: `dilation` must be a positive integer, got 0.",
    ),
    (
        lambda: MaxPool.of((2, 2), dilation=(1,)),
        "MaxPool: `dilation` is for 1 spatial axes, but `window_shape` for 2.",
    ),
    (
        lambda: AdaptiveAvgPool.of((2, 0)),
        "AdaptiveAvgPool: `output_size` must be a positive integer, got 0.",
    ),
    (lambda: AdaptiveMaxPool(()), "AdaptiveMaxPool: `output_size` is for 0 spatial axes"),
]


@pytest.mark.parametrize("make, text", WRONG_CONFIGURATIONS)
def test_wrong_configurations_are_refused(make, text):
    with pytest.raises(ValueError) as error:
        make()
    assert text in str(error.value)


WRONG_INPUTS = [
    (
        MaxPool.of((2, 2)),
        (4, 3),
        "MaxPool takes [height, width, channels], but got float32[4,3].",
    ),
    (
        SumPool.of(2, strides=(1,)),
        (4, 4, 3),
        "SumPool takes [length, channels], but got float32[4,4,3].",
    ),
    (
        MaxPool.of(2),
        (3,),
        "MaxPool takes 1 to 3 spatial axes and channels last, [..., channels], but got float32[3].",
    ),
    (AvgPool.of(1), (2, 2, 2, 2, 2), "AvgPool takes 1 to 3 spatial axes and channels last"),
    (
        AvgPool.of((3, 2)),
        (2, 4, 3),
        "AvgPool takes [height, width, channels] in which a window of 3 x 2 fits, but got "
        "float32[2,4,3].",
    ),
    (
        AvgPool.of(5, padding=1),
        (2, 3),
        "AvgPool takes [length, channels] in which a window of 5 fits with padding ((1, 1),), but "
        "got float32[2,3].",
    ),
    (AvgPool.of(1, padding="SAME"), (0, 3), "but got float32[0,3]."),
    (
        AvgPool.of(2, 1, 2, dilation=3),
        (2, 3),
        "AvgPool takes [length, channels] in which a window of 4 fits with padding ((2, 2),), none "
        "of them in padding alone, but got float32[2,3].",
    ),
    (
        MaxPool.of(3, dilation=2),
        (4, 3),
        "MaxPool takes [length, channels] in which a window of 5 fits, but got float32[4,3].",
    ),
    (
        AdaptiveMaxPool.of((2, 2)),
        (4, 3),
        "AdaptiveMaxPool takes [height, width, channels], but got float32[4,3].",
    ),
    (AdaptiveAvgPool.of(2), (4, 0, 3), "AdaptiveAvgPool takes 1 to 3 spatial axes"),
    (GlobalAvgPool.of(), (3,), "GlobalAvgPool takes [*spatial, channels], but got float32[3]."),
    (GlobalMaxPool.of(), (0, 3), "GlobalMaxPool takes [*spatial, channels], but got float32[0,3]."),
]


@pytest.mark.parametrize("template, shape, text", WRONG_INPUTS)
def test_inputs_that_do_not_fit_are_refused(template, shape, text):
    layer = template.layer(*template.args, **dict(template.options))
    for give in (lambda: template.init(KEY, ArraySpec(shape)), lambda: layer(jnp.ones(shape))):
        with pytest.raises(ValueError) as error:
            give()
        assert text in str(error.value)


@pytest.mark.parametrize("template", [MaxPool.of(2), AdaptiveAvgPool.of(2), GlobalMaxPool.of()])
def test_several_inputs_are_refused(template):
    with pytest.raises(ValueError, match=f"{template.layer.__name__} takes one array, but got"):
        template.init(KEY, ArraySpec((4, 3)), ArraySpec((4, 3)))
