"""Valid configurations of the layers of `oryxstate.nn`, and the specs of their inputs.

Layers that are made of other layers are in `_catalogue_parts.py`.

For each layer there is a strategy of a template and the specs of the inputs for one example. It
shrinks to the smallest layer with default options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from oryxstate import nn
from oryxstate._tree import ArraySpec


class TemplateExample(NamedTuple):
    """A template with inputs that it takes.

    Attributes:
        template: of a layer.
        specs: of its inputs, for one example.
    """

    template: nn.Template[Any]
    specs: tuple[ArraySpec, ...]


Maker = Callable[..., TemplateExample]

CATALOGUE: dict[type[nn.Layer], st.SearchStrategy[TemplateExample]] = {}

few = st.integers(1, 3)
leads = st.lists(few, max_size=2).map(tuple)
several = st.lists(few, min_size=1, max_size=2).map(tuple)
rates = st.sampled_from([0.5, 0.0])
functions = st.sampled_from([jax.nn.relu, jnp.tanh])


def layers(
    *kinds: type[nn.Layer],
) -> Callable[[Callable[..., TemplateExample]], Callable[..., TemplateExample]]:
    """Register the strategy of templates of these classes."""

    def register(function: Maker) -> Maker:
        for kind in kinds:
            CATALOGUE[kind] = st.composite(function)(kind)  # type: ignore[arg-type]
        return function

    return register


def chosen(draw: Any, **choices: Any) -> dict[str, Any]:
    """Draw some of these options; the first of each is the default and is left out."""
    drawn = {name: draw(st.sampled_from(values)) for name, values in choices.items()}
    return {name: value for name, value in drawn.items() if value != choices[name][0]}


def floats(template: Any, *shapes: tuple[int, ...]) -> TemplateExample:
    """Return an example whose inputs are float32 of these shapes."""
    return TemplateExample(template, tuple(map(ArraySpec, shapes)))


# Linear maps ----------------------------------------------------------------------------------


@layers(nn.Dense)
def _dense(draw: Any, kind: Any) -> TemplateExample:
    options = chosen(draw, use_bias=(True, False))
    return floats(kind.of(draw(few), **options), (*draw(leads), draw(few)))


@layers(nn.Bilinear)
def _bilinear(draw: Any, kind: Any) -> TemplateExample:
    options, lead = chosen(draw, use_bias=(True, False)), draw(leads)
    return floats(kind.of(draw(few), **options), (*lead, draw(few)), (*lead, draw(few)))


@layers(nn.Einsum)
def _einsum(draw: Any, kind: Any) -> TemplateExample:
    options, lead = chosen(draw, use_bias=(True, False)), draw(leads)
    shape = draw(st.tuples(few, few, few))
    equation, axes = draw(
        st.sampled_from(
            [("...d,dhk->...hk", shape[:1]), ("...hk,dhk->...d", shape[1:]), ("d,dhk->hk", None)]
        )
    )
    x_shape = shape[:1] if axes is None else (*lead, *axes)
    return floats(kind.of(equation, shape, **options), x_shape)


@layers(nn.MLP)
def _mlp(draw: Any, kind: Any) -> TemplateExample:
    options = chosen(draw, activation=(jax.nn.relu, jnp.tanh), use_bias=(True, False))
    return floats(kind.of(draw(several), **options), (*draw(leads), draw(few)))


# Windows --------------------------------------------------------------------------------------


@layers(nn.Conv, nn.ConvTranspose)
def _conv(draw: Any, kind: Any) -> TemplateExample:
    groups = draw(st.integers(1, 2))
    features, channels = groups * draw(few), groups * draw(few)
    size, options, spatial = _window(draw, ("VALID", "SAME", "CIRCULAR"))
    options |= chosen(draw, use_bias=(True, False)) | ({"groups": groups} if groups > 1 else {})
    return floats(kind.of(features, size, **options), (*spatial, channels))


@layers(nn.DepthwiseConv)
def _depthwise(draw: Any, kind: Any) -> TemplateExample:
    size, options, spatial = _window(draw, ("VALID", "SAME", "CIRCULAR"))
    options |= chosen(draw, multiplier=(1, 2), use_bias=(True, False))
    return floats(kind.of(size, **options), (*spatial, draw(few)))


@layers(nn.SeparableConv)
def _separable(draw: Any, kind: Any) -> TemplateExample:
    size, options, spatial = _window(draw, ("VALID", "SAME", "CIRCULAR"))
    options |= chosen(draw, multiplier=(1, 2), use_bias=(True, False))
    return floats(kind.of(draw(few), size, **options), (*spatial, draw(few)))


def _window(
    draw: Any, paddings: tuple[str, ...], dilations: tuple[int, ...] = (1, 2)
) -> tuple[Any, dict[str, Any], tuple[int, ...]]:
    """Draw a kernel, its options, and spatial axes into which it fits."""
    size = draw(several)
    options = chosen(draw, strides=(1, 2), padding=paddings, dilation=dilations)
    reach = [(n - 1) * options.get("dilation", 1) + 1 for n in size]
    return size, options, tuple(n + draw(st.integers(0, 2)) for n in reach)


@layers(nn.MaxPool, nn.AvgPool, nn.SumPool)
def _pool(draw: Any, kind: Any) -> TemplateExample:
    size, options, spatial = _window(draw, ("VALID", "SAME"), (1,))
    return floats(kind.of(size, **options), (*spatial, draw(few)))


@layers(nn.AdaptiveAvgPool, nn.AdaptiveMaxPool)
def _adaptive_pool(draw: Any, kind: Any) -> TemplateExample:
    sizes = draw(several)
    spatial = tuple(draw(st.integers(1, 5)) for _ in sizes)
    return floats(kind.of(sizes), (*spatial, draw(few)))


@layers(nn.GlobalAvgPool, nn.GlobalMaxPool)
def _global_pool(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(), (*draw(several), draw(few)))


@layers(nn.ResNetBlock)
def _resnet(draw: Any, kind: Any) -> TemplateExample:
    template = kind.of(draw(few), **chosen(draw, strides=(1, 2)))
    return floats(template, (*draw(several), draw(few)))


# Norms ----------------------------------------------------------------------------------------


@layers(nn.BatchNorm)
def _batch_norm(draw: Any, kind: Any) -> TemplateExample:
    options = chosen(
        draw, momentum=(0.99, 0.5), use_scale=(True, False), use_bias=(True, False), axis=(-1, 0)
    )
    return floats(kind.of(**options), (*draw(leads), draw(few)))


@layers(nn.LayerNorm, nn.RMSNorm)
def _layer_norm(draw: Any, kind: Any) -> TemplateExample:
    shape = draw(several)
    axes = (-1, tuple(range(-len(shape), 0)))
    options = chosen(draw, axes=axes, use_scale=(True, False))
    return floats(kind.of(**options), shape)


@layers(nn.GroupNorm)
def _group_norm(draw: Any, kind: Any) -> TemplateExample:
    groups, options = draw(few), chosen(draw, use_scale=(True, False), use_bias=(True, False))
    return floats(kind.of(groups, **options), (*draw(leads), groups * draw(st.integers(2, 3))))


@layers(nn.InstanceNorm)
def _instance_norm(draw: Any, kind: Any) -> TemplateExample:
    options = chosen(draw, use_scale=(True, False), use_bias=(True, False))
    return floats(kind.of(**options), (draw(st.integers(2, 3)), *draw(leads), draw(few)))


# Sequences ------------------------------------------------------------------------------------


@layers(nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell)
def _cell(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(draw(few)), (draw(few),))


@layers(nn.MultiHeadAttention)
def _attention(draw: Any, kind: Any) -> TemplateExample:
    template, x = self_attention(draw, draw(st.booleans()))
    free = not {"causal", "rotary_base"} & dict(template.options).keys()
    if free and draw(st.booleans()):
        return floats(template, x, (draw(few), draw(few)))
    return floats(template, x)


def self_attention(draw: Any, causal: bool) -> tuple[Any, tuple[int, ...]]:
    """Draw attention, and the shape of a sequence for it."""
    kv_heads, times = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    options = chosen(draw, use_bias=(True, False), rotary_base=(None, 100.0))
    options |= {"kv_heads": kv_heads} if times > 1 else {}
    options |= {"causal": True} if causal else {}
    heads, features = kv_heads * times, 2 * draw(st.integers(1, 2))
    template = nn.MultiHeadAttention.of(heads, **options)
    return template, (draw(few), heads * features)


@layers(nn.Embedding)
def _embedding(draw: Any, kind: Any) -> TemplateExample:
    template = kind.of(draw(st.integers(2, 4)), draw(few))
    return TemplateExample(template, (ArraySpec(draw(leads), "int32"),))


@layers(nn.SinusoidalPosition, nn.RotaryPosition)
def _position(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(), (draw(few), *draw(leads), 2 * draw(few)))


# Combinators ----------------------------------------------------------------------------------


@layers(nn.Lambda)
def _lambda(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(draw(functions)), draw(leads))


@layers(nn.Flatten)
def _flatten(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(), draw(leads))


@layers(nn.Reshape)
def _reshape(draw: Any, kind: Any) -> TemplateExample:
    rows, columns = draw(few), draw(few)
    shape = draw(st.sampled_from([(-1,), (rows, columns), (columns, -1)]))
    return floats(kind.of(*shape), (columns, rows))


# Element by element ---------------------------------------------------------------------------


@layers(nn.Dropout, nn.DropPath, nn.GaussianNoise)
def _noise(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(draw(rates)), draw(leads))


@layers(nn.PReLU)
def _prelu(draw: Any, kind: Any) -> TemplateExample:
    options = chosen(draw, per_feature=(False, True))
    return floats(kind.of(**options), draw(several))
