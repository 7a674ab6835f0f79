"""Which configurations of each layer of `oryxstate.nn` are valid, and for inputs of which specs?

A strategy for each layer, of a template and the specs of the inputs for one example. They shrink to
the smallest layer with the options that are the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from oryxstate import nn
from oryxstate._tree import ArraySpec

Example = tuple[Any, tuple[ArraySpec, ...]]

CATALOGUE: dict[type[nn.Layer], st.SearchStrategy[Example]] = {}

_few = st.integers(1, 3)
_lead = st.lists(_few, max_size=2).map(tuple)
_some = st.lists(_few, min_size=1, max_size=2).map(tuple)
_rates = st.sampled_from([0.5, 0.0])
_functions = st.sampled_from([jax.nn.relu, jnp.tanh])


def _layers(*kinds: type[nn.Layer]) -> Callable[[Callable[..., Example]], Callable[..., Example]]:
    """Decorate what draws the template of these classes."""

    def register(function: Callable[..., Example]) -> Callable[..., Example]:
        for kind in kinds:
            CATALOGUE[kind] = st.composite(function)(kind)  # type: ignore[arg-type]
        return function

    return register


def _options(draw: Any, **choices: Any) -> dict[str, Any]:
    """Some of these options; the first of each is the default and is left out."""
    drawn = {name: draw(st.sampled_from(values)) for name, values in choices.items()}
    return {name: value for name, value in drawn.items() if value != choices[name][0]}


def _floats(template: Any, *shapes: tuple[int, ...]) -> Example:
    return template, tuple(map(ArraySpec, shapes))


# Linear maps ----------------------------------------------------------------------------------


@_layers(nn.Dense)
def _dense(draw: Any, kind: Any) -> Example:
    options = _options(draw, use_bias=(True, False))
    return _floats(kind.of(draw(_few), **options), (*draw(_lead), draw(_few)))


@_layers(nn.Bilinear)
def _bilinear(draw: Any, kind: Any) -> Example:
    options, lead = _options(draw, use_bias=(True, False)), draw(_lead)
    return _floats(kind.of(draw(_few), **options), (*lead, draw(_few)), (*lead, draw(_few)))


@_layers(nn.Einsum)
def _einsum(draw: Any, kind: Any) -> Example:
    options, lead = _options(draw, use_bias=(True, False)), draw(_lead)
    shape = draw(st.tuples(_few, _few, _few))
    equation, axes = draw(
        st.sampled_from(
            [("...d,dhk->...hk", shape[:1]), ("...hk,dhk->...d", shape[1:]), ("d,dhk->hk", None)]
        )
    )
    x_shape = shape[:1] if axes is None else (*lead, *axes)
    return _floats(kind.of(equation, shape, **options), x_shape)


@_layers(nn.LoRA)
def _lora(draw: Any, kind: Any) -> Example:
    dense = nn.Dense.of(draw(_few), **_options(draw, use_bias=(True, False)))
    template = kind.of(dense, draw(_few), **_options(draw, alpha=(1.0, 2.0)))
    return _floats(template, (*draw(_lead), draw(_few)))


@_layers(nn.MLP)
def _mlp(draw: Any, kind: Any) -> Example:
    options = _options(draw, activation=(jax.nn.relu, jnp.tanh), use_bias=(True, False))
    return _floats(kind.of(draw(_some), **options), (*draw(_lead), draw(_few)))


# Windows --------------------------------------------------------------------------------------


@_layers(nn.Conv, nn.ConvTranspose)
def _conv(draw: Any, kind: Any) -> Example:
    groups = draw(st.integers(1, 2))
    features, channels = groups * draw(_few), groups * draw(_few)
    size, options, spatial = _window(draw, ("VALID", "SAME", "CIRCULAR"))
    options |= _options(draw, use_bias=(True, False)) | ({"groups": groups} if groups > 1 else {})
    return _floats(kind.of(features, size, **options), (*spatial, channels))


@_layers(nn.DepthwiseConv)
def _depthwise(draw: Any, kind: Any) -> Example:
    size, options, spatial = _window(draw, ("VALID", "SAME", "CIRCULAR"))
    options |= _options(draw, multiplier=(1, 2), use_bias=(True, False))
    return _floats(kind.of(size, **options), (*spatial, draw(_few)))


@_layers(nn.SeparableConv)
def _separable(draw: Any, kind: Any) -> Example:
    size, options, spatial = _window(draw, ("VALID", "SAME", "CIRCULAR"))
    options |= _options(draw, multiplier=(1, 2), use_bias=(True, False))
    return _floats(kind.of(draw(_few), size, **options), (*spatial, draw(_few)))


def _window(
    draw: Any, paddings: tuple[str, ...], dilations: tuple[int, ...] = (1, 2)
) -> tuple[Any, dict[str, Any], tuple[int, ...]]:
    """A kernel, its options, and spatial axes into which it fits."""
    size = draw(_some)
    options = _options(draw, strides=(1, 2), padding=paddings, dilation=dilations)
    reach = [(n - 1) * options.get("dilation", 1) + 1 for n in size]
    return size, options, tuple(n + draw(st.integers(0, 2)) for n in reach)


@_layers(nn.MaxPool, nn.AvgPool, nn.SumPool)
def _pool(draw: Any, kind: Any) -> Example:
    size, options, spatial = _window(draw, ("VALID", "SAME"), (1,))
    return _floats(kind.of(size, **options), (*spatial, draw(_few)))


@_layers(nn.AdaptiveAvgPool, nn.AdaptiveMaxPool)
def _adaptive_pool(draw: Any, kind: Any) -> Example:
    sizes = draw(_some)
    spatial = tuple(draw(st.integers(1, 5)) for _ in sizes)
    return _floats(kind.of(sizes), (*spatial, draw(_few)))


@_layers(nn.GlobalAvgPool, nn.GlobalMaxPool)
def _global_pool(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(), (*draw(_some), draw(_few)))


@_layers(nn.ResNetBlock)
def _resnet(draw: Any, kind: Any) -> Example:
    template = kind.of(draw(_few), **_options(draw, strides=(1, 2)))
    return _floats(template, (*draw(_some), draw(_few)))


# Norms ----------------------------------------------------------------------------------------


@_layers(nn.BatchNorm)
def _batch_norm(draw: Any, kind: Any) -> Example:
    options = _options(draw, momentum=(0.99, 0.5), use_scale=(True, False), use_bias=(True, False))
    return _floats(kind.of(**options), (*draw(_lead), draw(_few)))


@_layers(nn.LayerNorm, nn.RMSNorm)
def _layer_norm(draw: Any, kind: Any) -> Example:
    shape = draw(_some)
    axes = (-1, tuple(range(-len(shape), 0)))
    options = _options(draw, axes=axes, use_scale=(True, False))
    return _floats(kind.of(**options), shape)


@_layers(nn.GroupNorm)
def _group_norm(draw: Any, kind: Any) -> Example:
    groups, options = draw(_few), _options(draw, use_scale=(True, False), use_bias=(True, False))
    return _floats(kind.of(groups, **options), (*draw(_lead), groups * draw(st.integers(2, 3))))


@_layers(nn.InstanceNorm)
def _instance_norm(draw: Any, kind: Any) -> Example:
    options = _options(draw, use_scale=(True, False), use_bias=(True, False))
    return _floats(kind.of(**options), (draw(st.integers(2, 3)), *draw(_lead), draw(_few)))


@_layers(nn.SpectralNorm, nn.WeightNorm)
def _kernel_norm(draw: Any, kind: Any) -> Example:
    inner, specs = draw(st.one_of(CATALOGUE[nn.Dense], CATALOGUE[nn.Conv]))
    return kind.of(inner), specs


# Sequences ------------------------------------------------------------------------------------


@_layers(nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell)
def _cell(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(draw(_few)), (draw(_few),))


_cells = st.sampled_from([nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell])


@_layers(nn.RNN)
def _rnn(draw: Any, kind: Any) -> Example:
    options = _options(draw, reverse=(False, True), return_sequence=(True, False))
    return _floats(kind.of(draw(_cells).of(draw(_few)), **options), (draw(_few), draw(_few)))


@_layers(nn.Bidirectional)
def _bidirectional(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(draw(_cells).of(draw(_few))), (draw(_few), draw(_few)))


@_layers(nn.MultiHeadAttention)
def _attention(draw: Any, kind: Any) -> Example:
    template, x = _self_attention(draw, draw(st.booleans()))
    free = not {"causal", "rotary_base"} & dict(template.options).keys()
    if free and draw(st.booleans()):
        return _floats(template, x, (draw(_few), draw(_few)))
    return _floats(template, x)


def _self_attention(draw: Any, causal: bool) -> tuple[Any, tuple[int, ...]]:
    """Attention, and the shape of a sequence for it."""
    kv_heads, times = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    options = _options(draw, use_bias=(True, False), rotary_base=(None, 100.0))
    options |= {"kv_heads": kv_heads} if times > 1 else {}
    options |= {"causal": True} if causal else {}
    heads, features = kv_heads * times, 2 * draw(st.integers(1, 2))
    template = nn.MultiHeadAttention.of(heads, **options)
    return template, (draw(_few), heads * features)


@_layers(nn.CachedAttention)
def _cached_attention(draw: Any, kind: Any) -> Example:
    template, x = _self_attention(draw, True)
    return _floats(kind.of(template, max_length=16), x)


@_layers(nn.TransformerBlock)
def _transformer_block(draw: Any, kind: Any) -> Example:
    attention, x = _self_attention(draw, draw(st.booleans()))
    options = _options(draw, dropout=(0.0, 0.5))
    return _floats(kind.of(attention, nn.MLP.of((draw(_few), x[-1])), **options), x)


@_layers(nn.Embedding)
def _embedding(draw: Any, kind: Any) -> Example:
    template = kind.of(draw(st.integers(2, 4)), draw(_few))
    return template, (ArraySpec(draw(_lead), "int32"),)


@_layers(nn.SinusoidalPosition, nn.RotaryPosition)
def _position(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(), (draw(_few), *draw(_lead), 2 * draw(_few)))


# Combinators ----------------------------------------------------------------------------------


@_layers(nn.Serial)
def _serial(draw: Any, kind: Any) -> Example:
    template, specs = draw(CATALOGUE[nn.Dense])
    return kind.of(template, draw(_functions), *draw(st.lists(_dense_templates, max_size=1))), specs


_dense_templates = _few.map(nn.Dense.of)
_parts = st.lists(_dense_templates | _functions, min_size=1, max_size=2)


@_layers(nn.FanOut)
def _fan_out(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(*draw(_parts)), (*draw(_lead), draw(_few)))


@_layers(nn.Parallel)
def _parallel(draw: Any, kind: Any) -> Example:
    parts = draw(st.lists(_dense_templates | _functions, min_size=2, max_size=3))
    return _floats(kind.of(*parts), *[(*draw(_lead), draw(_few)) for _ in parts])


@_layers(nn.Residual)
def _residual(draw: Any, kind: Any) -> Example:
    size, features = draw(_few), draw(_few)
    parts = (nn.Dense.of(features),) * (1 if size == features and draw(st.booleans()) else 2)
    return _floats(kind.of(*parts), (*draw(_lead), size))


@_layers(nn.Branch)
def _branch(draw: Any, kind: Any) -> Example:
    parts = [nn.Dense.of(draw(_few))] * draw(_few)
    return kind.of(*parts), (ArraySpec((), "int32"), ArraySpec((*draw(_lead), draw(_few))))


@_layers(nn.Repeat, nn.Shared)
def _repeat(draw: Any, kind: Any) -> Example:
    features = draw(_few)
    body = nn.Residual.of(nn.Dense.of(features)) if draw(st.booleans()) else nn.Dense.of(features)
    options = _options(draw, remat=(False, True)) if kind is nn.Repeat else {}
    return _floats(kind.of(body, draw(_few), **options), (*draw(_lead), features))


@_layers(nn.EMA)
def _ema(draw: Any, kind: Any) -> Example:
    template, specs = draw(CATALOGUE[nn.Dense])
    return kind.of(template, **_options(draw, decay=(0.999, 0.5))), specs


@_layers(nn.Lambda)
def _lambda(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(draw(_functions)), draw(_lead))


@_layers(nn.Flatten)
def _flatten(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(), draw(_lead))


@_layers(nn.Reshape)
def _reshape(draw: Any, kind: Any) -> Example:
    rows, columns = draw(_few), draw(_few)
    shape = draw(st.sampled_from([(-1,), (rows, columns), (columns, -1)]))
    return _floats(kind.of(*shape), (columns, rows))


# Element by element ---------------------------------------------------------------------------


@_layers(nn.Dropout, nn.DropPath, nn.GaussianNoise)
def _noise(draw: Any, kind: Any) -> Example:
    return _floats(kind.of(draw(_rates)), draw(_lead))


@_layers(nn.PReLU)
def _prelu(draw: Any, kind: Any) -> Example:
    options = _options(draw, per_feature=(False, True))
    return _floats(kind.of(**options), draw(_some))
