"""Layers with sizes that a mesh of four devices shares, for tests of placement."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import oryxstate as ox
from oryxstate import ArraySpec, nn, sharding

BATCH = 8
ids, sentence = ArraySpec((), "int32"), ArraySpec(8, "int32")
RULES = {**sharding.FSDP, **sharding.TENSOR_PARALLEL, "conv_out": "model"}


def entry(template: Any, *specs: Any) -> tuple[Any, tuple[ArraySpec, ...]]:
    """A template and the specs of its inputs for one example, float32 of these shapes."""
    return template, tuple(s if isinstance(s, ArraySpec) else ArraySpec(s) for s in specs)


PLACED = {
    "Dense2": entry(nn.Dense.of(8) >> jax.nn.relu >> nn.Dense.of(4, axes=("mlp", "embed")), (4,)),
    "Dense2 same": entry(nn.Dense.of(8) >> jax.nn.relu >> nn.Dense.of(4), (4,)),
    "MLP": entry(nn.MLP.of((8, 4)), (4,)),
    "Dropout": entry(nn.Dense.of(8) >> nn.Dropout.of(0.5), (4,)),
    "DropPath": entry(nn.Residual.of(nn.MLP.of((8, 4)) >> nn.DropPath.of(0.5)), (4,)),
    "Noise": entry(nn.Dense.of(8) >> nn.GaussianNoise.of(0.5), (4,)),
    "BN": entry(nn.BatchNorm.of(), (4,)),
    "BN tp": entry(nn.Dense.of(8) >> nn.BatchNorm.of(), (4,)),
    "BN spatial": entry(nn.Conv.of(8, 3) >> nn.BatchNorm.of(), (6, 6, 4)),
    "BN cf": entry(nn.BatchNorm.of(axis=0), (4, 4, 4)),
    "FanOut": entry(nn.FanOut.of(nn.Dense.of(4), jax.nn.tanh), (4,)),
    "Parallel": entry(nn.Parallel.of(nn.Dense.of(4), jax.nn.tanh), (4,), (4,)),
    "Residual": entry(nn.Residual.of(nn.Dense.of(4)), (4,)),
    "Flatten": entry(nn.Dense.of(8) >> nn.Flatten.of(), (2, 4)),
    "Reshape": entry(nn.Dense.of(8) >> nn.Reshape.of(4, -1), (2, 4)),
    "Branch": entry(nn.Branch.of(nn.Dense.of(4), nn.Dense.of(4)), ids, (4,)),
    "Repeat": entry(nn.Repeat.of(nn.Residual.of(nn.MLP.of((8, 4))), 3), (4,)),
    "Repeat BN remat": entry(
        nn.Repeat.of(nn.Residual.of(nn.BatchNorm.of() >> nn.MLP.of((8, 4))), 2, remat=True), (4,)
    ),
    "Shared": entry(nn.Shared.of(nn.Dense.of(4), 3), (4,)),
    "EMA": entry(nn.EMA.of(nn.Dense.of(4)), (4,)),
    "LoRA": entry(nn.LoRA.of(nn.Dense.of(4), 2), (4,)),
    "SimpleRNN": entry(nn.RNN.of(nn.SimpleRNNCell.of(4)), (5, 4)),
    "GRU": entry(nn.RNN.of(nn.GRUCell.of(4)), (5, 4)),
    "LSTM": entry(nn.RNN.of(nn.LSTMCell.of(4), reverse=True, return_sequence=False), (5, 4)),
    "Dense LSTM": entry(nn.Dense.of(8) >> nn.RNN.of(nn.LSTMCell.of(4)), (5, 4)),
    "Bidirectional": entry(nn.Bidirectional.of(nn.SimpleRNNCell.of(4)), (5, 4)),
    "MHA": entry(nn.MultiHeadAttention.of(4), (6, 8)),
    "MHA grouped": entry(
        nn.MultiHeadAttention.of(4, kv_heads=2, causal=True, rotary_base=100.0), (6, 8)
    ),
    "MHA context": entry(nn.MultiHeadAttention.of(4), (6, 8), (4, 4)),
    "Block": entry(
        nn.TransformerBlock.of(
            nn.MultiHeadAttention.of(4, causal=True), nn.MLP.of((16, 8)), dropout=0.1
        ),
        (6, 8),
    ),
    "Block post": entry(
        nn.TransformerBlock.of(
            nn.MultiHeadAttention.of(4),
            nn.MLP.of((16, 8)),
            norm=nn.LayerNorm.of(),
            norm_first=False,
        ),
        (6, 8),
    ),
    "MP": entry(nn.MixedPrecision.of(nn.MLP.of((8, 4))), (4,)),
    "Conv": entry(nn.Conv.of(8, 3), (6, 6, 4)),
    "Conv2": entry(
        nn.Conv.of(8, 3) >> jax.nn.relu >> nn.Conv.of(4, 3, strides=2, padding="SAME"), (6, 6, 4)
    ),
    "Conv groups": entry(nn.Conv.of(8, 3, groups=4, padding="CIRCULAR"), (6, 4)),
    "ConvT": entry(nn.ConvTranspose.of(8, 3, strides=2), (6, 4)),
    "Depthwise": entry(nn.DepthwiseConv.of(3, multiplier=2), (6, 6, 4)),
    "Separable": entry(nn.SeparableConv.of(8, 3), (6, 6, 4)),
    "Pools": entry(nn.Conv.of(8, 3) >> nn.MaxPool.of(2) >> nn.AvgPool.of(2), (8, 8, 4)),
    "SumPool": entry(nn.SumPool.of(2), (8, 4)),
    "Adaptive": entry(nn.FanOut.of(nn.AdaptiveAvgPool.of(3), nn.AdaptiveMaxPool.of(3)), (8, 4)),
    "Global": entry(nn.FanOut.of(nn.GlobalAvgPool.of(), nn.GlobalMaxPool.of()), (8, 4)),
    "ResNet": entry(nn.ResNetBlock.of(8), (8, 8, 4)),
    "Conv no bias": entry(nn.Conv.of(8, 3, use_bias=False) >> jax.nn.relu, (6, 4)),
    "GroupNorm": entry(nn.Dense.of(8) >> nn.GroupNorm.of(2), (3, 4)),
    "InstanceNorm": entry(nn.Dense.of(8) >> nn.InstanceNorm.of(), (3, 4)),
    "LayerNorm": entry(nn.Dense.of(8) >> nn.LayerNorm.of(), (3, 4)),
    "RMSNorm": entry(nn.Dense.of(8) >> nn.RMSNorm.of((-2, -1)), (4, 4)),
    "PReLU": entry(nn.Dense.of(8) >> nn.PReLU.of(per_feature=True), (4,)),
    "Bilinear": entry(nn.Bilinear.of(8), (4,), (4,)),
    "Bilinear tup": entry(nn.FanOut.of(nn.Dense.of(8), nn.Dense.of(8)) >> nn.Bilinear.of(8), (4,)),
    "Einsum": entry(
        nn.Einsum.of("...d,dhk->...hk", (8, 4, 2), axes=("embed", "heads", None))
        >> nn.Einsum.of("...hk,hkd->...d", (4, 2, 8), axes=("heads", None, "embed")),
        (3, 8),
    ),
    "Embedding": entry(nn.Embedding.of(16, 8) >> nn.Dense.of(8), sentence),
    "Sinus": entry(nn.Dense.of(8) >> nn.SinusoidalPosition.of(), (6, 4)),
    "Rotary": entry(nn.Dense.of(8) >> nn.RotaryPosition.of(), (6, 4)),
    "Spectral": entry(nn.SpectralNorm.of(nn.Dense.of(8)), (4,)),
    "Weight": entry(nn.WeightNorm.of(nn.Dense.of(8)), (4,)),
}


def inputs(specs: tuple[ArraySpec, ...], batch: int = BATCH) -> tuple[jax.Array, ...]:
    """A batch of inputs of these specs."""

    def one(i: int, spec: ArraySpec) -> jax.Array:
        shape = batch, *spec.shape
        if spec.dtype.kind == "i":
            return jnp.arange(batch * spec.size, dtype=spec.dtype).reshape(shape) % 2
        return jax.random.normal(jax.random.key(i), shape)

    return tuple(one(i, spec) for i, spec in enumerate(specs))


def step(model: Any, *xs: jax.Array) -> tuple[Any, Any, Any, Any]:
    """The loss, the gradients, the outputs and the new state of a step of training."""
    params, rest = ox.partition(model)

    def loss(params: Any) -> Any:
        keywords = {"training": True, "rng": jax.random.key(3)}
        y, new = ox.batch_call_and_update(ox.merge(params, rest), *xs, **keywords)
        squares = [jnp.square(leaf.astype(jnp.float32)).mean() for leaf in jax.tree.leaves(y)]
        return sum(squares), (y, new)

    (value, (y, new)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return value, grads, y, ox.partition(new)[1]
