"""The catalogue of all layers, each with a configuration and the spec of its input."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from oryxstate import ArraySpec, nn


class Entry(NamedTuple):
    """A layer of the catalogue.

    Attributes:
        template: how it is configured.
        specs: of its inputs, for one example.
        batched: whether it only trains in a `vmap` over examples.
    """

    template: Any
    specs: tuple[ArraySpec, ...]
    batched: bool = False


def entry(template: Any, *shapes: tuple[int, ...], **options: Any) -> Entry:
    """An entry whose inputs are float32 of these shapes."""
    return Entry(template, tuple(map(ArraySpec, shapes)), **options)


CATALOGUE: dict[str, Entry] = {
    "Dense": entry(nn.Dense.of(4), (3,)),
    "Dense without bias": entry(nn.Dense.of(4, use_bias=False), (2, 3)),
    "Dropout": entry(nn.Dropout.of(0.5), (8,)),
    "BatchNorm": entry(nn.BatchNorm.of(), (3,), batched=True),
    "BatchNorm with spatial axes": entry(nn.BatchNorm.of(), (4, 4, 3), batched=True),
    "BatchNorm, channels first": entry(nn.BatchNorm.of(axis=0), (3, 4, 4), batched=True),
    "Serial": entry(nn.Dense.of(4) >> jax.nn.tanh >> nn.Dense.of(2), (3,)),
    "FanOut": entry(nn.FanOut.of(nn.Dense.of(4), jax.nn.tanh), (3,)),
    "Parallel": entry(nn.Parallel.of(nn.Dense.of(4), jax.nn.tanh), (3,), (2,)),
    "Residual": entry(nn.Residual.of(nn.Dense.of(3)), (3,)),
    "Residual with a shortcut": entry(nn.Residual.of(nn.Dense.of(2), nn.Dense.of(2)), (3,)),
    "Flatten": entry(nn.Flatten.of(), (2, 3)),
    "Reshape": entry(nn.Reshape.of(3, -1), (2, 6)),
    "Lambda": entry(nn.Lambda.of(jax.nn.relu), (3,)),
    "Branch": Entry(
        nn.Branch.of(nn.Dense.of(2), nn.Dense.of(2)), (ArraySpec((), "int32"), ArraySpec(3))
    ),
    "Repeat": entry(nn.Repeat.of(nn.Residual.of(nn.Dense.of(3)), 3), (3,)),
    "Repeat with remat": entry(
        nn.Repeat.of(nn.Residual.of(nn.BatchNorm.of() >> jnp.tanh), 2, remat=True),
        (3,),
        batched=True,
    ),
    "Shared": entry(nn.Shared.of(nn.Dense.of(3), 3), (3,)),
    "EMA": entry(nn.EMA.of(nn.Dense.of(2)), (3,)),
    "EMA with accumulated gradients": entry(nn.EMA.of(nn.Dense.of(2), every=2), (3,)),
    "LoRA": entry(nn.LoRA.of(nn.Dense.of(4), 2), (3,)),
    "SimpleRNNCell": entry(nn.SimpleRNNCell.of(4), (3,)),
    "GRUCell": entry(nn.GRUCell.of(4), (3,)),
    "LSTMCell": entry(nn.LSTMCell.of(4), (3,)),
    "RNN": entry(nn.RNN.of(nn.GRUCell.of(4)), (5, 3)),
    "RNN reversed to one output": entry(
        nn.RNN.of(nn.LSTMCell.of(4), reverse=True, return_sequence=False), (5, 3)
    ),
    "RNN, stateful": entry(nn.RNN.of(nn.GRUCell.of(4), stateful=True), (5, 3)),
    "Bidirectional": entry(nn.Bidirectional.of(nn.SimpleRNNCell.of(2)), (5, 3)),
    "MultiHeadAttention": entry(nn.MultiHeadAttention.of(2), (5, 8)),
    "MultiHeadAttention, causal, grouped, rotary": entry(
        nn.MultiHeadAttention.of(4, kv_heads=2, causal=True, rotary_base=100.0), (5, 8)
    ),
    "MultiHeadAttention of a context": entry(nn.MultiHeadAttention.of(2), (5, 8), (3, 6)),
    "CachedAttention": entry(
        nn.CachedAttention.of(nn.MultiHeadAttention.of(2, causal=True), max_length=16), (2, 8)
    ),
    "MLP": entry(nn.MLP.of((6, 4)), (3,)),
    "TransformerBlock": entry(
        nn.TransformerBlock.of(nn.MultiHeadAttention.of(2), nn.MLP.of((16, 8))), (5, 8)
    ),
    "TransformerBlock with dropout": entry(
        nn.TransformerBlock.of(nn.MultiHeadAttention.of(2), nn.MLP.of((16, 8)), dropout=0.5),
        (5, 8),
    ),
    "Conv": entry(nn.Conv.of(4, (3, 3)), (5, 5, 2)),
    "Conv, one axis": entry(nn.Conv.of(4, 3, strides=2, padding="SAME"), (6, 2)),
    "Conv, three axes": entry(nn.Conv.of(2, 2), (3, 3, 2, 2)),
    "Conv, groups and dilation": entry(
        nn.Conv.of(4, 2, groups=2, dilation=2, padding=1, use_bias=False), (4, 4, 2)
    ),
    "Conv, circular": entry(nn.Conv.of(3, 3, padding="CIRCULAR"), (4, 2)),
    "ConvTranspose": entry(nn.ConvTranspose.of(3, (3, 3), strides=2, padding="SAME"), (3, 3, 2)),
    "ConvTranspose, circular": entry(
        nn.ConvTranspose.of(3, 4, strides=2, padding="CIRCULAR"), (3, 2)
    ),
    "DepthwiseConv": entry(nn.DepthwiseConv.of((2, 2), multiplier=2), (4, 4, 3)),
    "SeparableConv": entry(nn.SeparableConv.of(4, 3), (4, 4, 2)),
    "MaxPool": entry(nn.MaxPool.of(2), (4, 4, 2)),
    "AvgPool": entry(nn.AvgPool.of([3, 3], strides=2, padding="SAME"), (5, 5, 2)),
    "SumPool": entry(nn.SumPool.of(2, 1, padding=1), (5, 2)),
    "AdaptiveAvgPool": entry(nn.AdaptiveAvgPool.of((2, 3)), (5, 7, 2)),
    "AdaptiveMaxPool": entry(nn.AdaptiveMaxPool.of(2), (5, 2)),
    "GlobalAvgPool": entry(nn.GlobalAvgPool.of(), (3, 4, 2)),
    "GlobalMaxPool": entry(nn.GlobalMaxPool.of(), (3, 4, 2)),
    "LayerNorm": entry(nn.LayerNorm.of(), (2, 3)),
    "LayerNorm of given axes": entry(nn.LayerNorm.of((-3, -1)), (2, 3, 4)),
    "RMSNorm": entry(nn.RMSNorm.of(), (2, 3)),
    "GroupNorm": entry(nn.GroupNorm.of(2), (3, 4)),
    "InstanceNorm": entry(nn.InstanceNorm.of(), (3, 3, 2)),
    "SpectralNorm": entry(nn.SpectralNorm.of(nn.Dense.of(4)), (3,)),
    "WeightNorm": entry(nn.WeightNorm.of(nn.Dense.of(4)), (3,)),
    "Embedding": Entry(nn.Embedding.of(5, 4), (ArraySpec((3,), "int32"),)),
    "SinusoidalPosition": entry(nn.SinusoidalPosition.of(), (3, 4)),
    "RotaryPosition": entry(nn.RotaryPosition.of(), (3, 2, 4)),
    "Einsum": entry(nn.Einsum.of("...d,dhk->...hk", (3, 2, 4)), (5, 3)),
    "Bilinear": entry(nn.Bilinear.of(4), (3,), (2,)),
    "DropPath": entry(nn.DropPath.of(0.5), (8,)),
    "GaussianNoise": entry(nn.GaussianNoise.of(0.5), (8,)),
    "PReLU": entry(nn.PReLU.of(), (3,)),
    "PReLU for each feature": entry(nn.PReLU.of(per_feature=True), (2, 3)),
    "MixedPrecision": entry(
        nn.MixedPrecision.of(nn.Dense.of(4) >> nn.RMSNorm.of(), dtype="float32"), (3,)
    ),
    "ResNetBlock": entry(nn.ResNetBlock.of(3), (6, 6, 3), batched=True),
    "ResNetBlock with strides": entry(nn.ResNetBlock.of(4, 2), (6, 6, 3), batched=True),
}
