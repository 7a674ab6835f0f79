"""oryxstate.nn: layers, and templates of layers that see the shape of their input."""

from typing import TYPE_CHECKING

from oryxstate.nn._activation import PReLU
from oryxstate.nn._attention import MultiHeadAttention
from oryxstate.nn._bidirectional import Bidirectional
from oryxstate.nn._blocks import MLP, TransformerBlock
from oryxstate.nn._cells import GRUCell, LSTMCell, SimpleRNNCell
from oryxstate.nn._combinators import Branch, FanOut, Flatten, Parallel, Reshape, Residual, Serial
from oryxstate.nn._conv import Conv
from oryxstate.nn._conv_transpose import ConvTranspose
from oryxstate.nn._embedding import Embedding, RotaryPosition, SinusoidalPosition, rotary
from oryxstate.nn._group_norm import GroupNorm, InstanceNorm
from oryxstate.nn._kv_cache import CachedAttention
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._layer_norm import LayerNorm, RMSNorm
from oryxstate.nn._linear import Dense
from oryxstate.nn._linear_variants import Bilinear, Einsum
from oryxstate.nn._mixed_precision import MixedPrecision
from oryxstate.nn._noise import Dropout, DropPath, GaussianNoise
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._parts import Lambda
from oryxstate.nn._pool import AvgPool, MaxPool, SumPool
from oryxstate.nn._pool_adaptive import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    GlobalAvgPool,
    GlobalMaxPool,
)
from oryxstate.nn._recipes import equinox_mapping, flax_mapping, nnx_mapping, torch_mapping
from oryxstate.nn._recurrent import RecurrentCell
from oryxstate.nn._repeat import Repeat, Shared
from oryxstate.nn._resnet import ResNetBlock
from oryxstate.nn._rng import Rng
from oryxstate.nn._rnn import RNN
from oryxstate.nn._separable import DepthwiseConv, SeparableConv
from oryxstate.nn._spectral import SpectralNorm, WeightNorm
from oryxstate.nn._template import Template
from oryxstate.nn._wrappers import EMA, LoRA

__all__ = [
    "EMA",
    "MLP",
    "RNN",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "Bidirectional",
    "Bilinear",
    "Branch",
    "CachedAttention",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DepthwiseConv",
    "DropPath",
    "Dropout",
    "Einsum",
    "Embedding",
    "FanOut",
    "Flatten",
    "GRUCell",
    "GaussianNoise",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "Lambda",
    "Layer",
    "LayerNorm",
    "LayerParams",
    "LoRA",
    "MaxPool",
    "MixedPrecision",
    "MultiHeadAttention",
    "PReLU",
    "Parallel",
    "RMSNorm",
    "RecurrentCell",
    "Repeat",
    "ResNetBlock",
    "Reshape",
    "Residual",
    "Rng",
    "RotaryPosition",
    "SeparableConv",
    "Serial",
    "Shared",
    "SimpleRNNCell",
    "SinusoidalPosition",
    "SpectralNorm",
    "SumPool",
    "Template",
    "TransformerBlock",
    "WeightNorm",
    "equinox_mapping",
    "flax_mapping",
    "nnx_mapping",
    "rotary",
    "torch_mapping",
]

if not TYPE_CHECKING:  # to a type checker a name that is not here is an error already
    from oryxstate.nn._peers import unknown as __getattr__  # noqa: F401
