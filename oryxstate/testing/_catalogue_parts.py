"""Valid configurations of the layers that are made of other layers, and their inputs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oryxstate import nn
from oryxstate._tree import ArraySpec
from oryxstate.testing._catalogue import (
    CATALOGUE,
    TemplateExample,
    chosen,
    few,
    floats,
    functions,
    layers,
    leads,
    self_attention,
)

_dense_templates = few.map(nn.Dense.of)
_parts = st.lists(_dense_templates | functions, min_size=1, max_size=2)
_directions = {"reverse": (False, True)}, {"stateful": (False, True)}
_cells = st.sampled_from([nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell])


@layers(nn.Serial)
def _serial(draw: Any, kind: Any) -> TemplateExample:
    template, specs = draw(CATALOGUE[nn.Dense])
    more = draw(st.lists(_dense_templates, max_size=1))
    return TemplateExample(kind.of(template, draw(functions), *more), specs)


@layers(nn.FanOut)
def _fan_out(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(*draw(_parts)), (*draw(leads), draw(few)))


@layers(nn.Parallel)
def _parallel(draw: Any, kind: Any) -> TemplateExample:
    parts = draw(st.lists(_dense_templates | functions, min_size=2, max_size=3))
    return floats(kind.of(*parts), *[(*draw(leads), draw(few)) for _ in parts])


@layers(nn.Residual)
def _residual(draw: Any, kind: Any) -> TemplateExample:
    size, features = draw(few), draw(few)
    parts = (nn.Dense.of(features),) * (1 if size == features and draw(st.booleans()) else 2)
    return floats(kind.of(*parts), (*draw(leads), size))


@layers(nn.Branch)
def _branch(draw: Any, kind: Any) -> TemplateExample:
    parts = [nn.Dense.of(draw(few))] * draw(few)
    specs = ArraySpec((), "int32"), ArraySpec((*draw(leads), draw(few)))
    return TemplateExample(kind.of(*parts), specs)


@layers(nn.Repeat, nn.Shared)
def _repeat(draw: Any, kind: Any) -> TemplateExample:
    features = draw(few)
    body = nn.Residual.of(nn.Dense.of(features)) if draw(st.booleans()) else nn.Dense.of(features)
    options = chosen(draw, remat=(False, True)) if kind is nn.Repeat else {}
    return floats(kind.of(body, draw(few), **options), (*draw(leads), features))


@layers(nn.EMA)
def _ema(draw: Any, kind: Any) -> TemplateExample:
    template, specs = draw(CATALOGUE[nn.Dense])
    return TemplateExample(
        kind.of(template, **chosen(draw, decay=(0.999, 0.5), every=(1, 2))), specs
    )


@layers(nn.MixedPrecision)
def _mixed_precision(draw: Any, kind: Any) -> TemplateExample:
    template, specs = draw(CATALOGUE[nn.Dense])
    return TemplateExample(kind.of(template, **chosen(draw, dtype=("bfloat16", "float16"))), specs)


@layers(nn.LoRA)
def _lora(draw: Any, kind: Any) -> TemplateExample:
    dense = nn.Dense.of(draw(few), **chosen(draw, use_bias=(True, False)))
    template = kind.of(dense, draw(few), **chosen(draw, alpha=(1.0, 2.0)))
    return floats(template, (*draw(leads), draw(few)))


@layers(nn.SpectralNorm, nn.WeightNorm)
def _kernel_norm(draw: Any, kind: Any) -> TemplateExample:
    inner, specs = draw(st.one_of(CATALOGUE[nn.Dense], CATALOGUE[nn.Conv]))
    return TemplateExample(kind.of(inner), specs)


@layers(nn.RNN)
def _rnn(draw: Any, kind: Any) -> TemplateExample:
    direction = chosen(draw, **draw(st.sampled_from(_directions)))
    options = {**direction, **chosen(draw, return_sequence=(True, False))}
    return floats(kind.of(draw(_cells).of(draw(few)), **options), (draw(few), draw(few)))


@layers(nn.Bidirectional)
def _bidirectional(draw: Any, kind: Any) -> TemplateExample:
    return floats(kind.of(draw(_cells).of(draw(few))), (draw(few), draw(few)))


@layers(nn.CachedAttention)
def _cached_attention(draw: Any, kind: Any) -> TemplateExample:
    template, x = self_attention(draw, True)
    return floats(kind.of(template, max_length=16), x)


@layers(nn.TransformerBlock)
def _transformer_block(draw: Any, kind: Any) -> TemplateExample:
    attention, x = self_attention(draw, draw(st.booleans()))
    options = chosen(draw, dropout=(0.0, 0.5))
    return floats(kind.of(attention, nn.MLP.of((draw(few), x[-1])), **options), x)
