"""Weights of Equinox."""

from __future__ import annotations

from functools import partial
from typing import Any

from oryxstate.mapping._layouts import Reshape, Transpose
from oryxstate.mapping._rule import Rule
from oryxstate.nn._activation import PReLU
from oryxstate.nn._attention import MultiHeadAttention
from oryxstate.nn._cells import GRUCell, LSTMCell
from oryxstate.nn._conv import Convolution
from oryxstate.nn._embedding import Embedding
from oryxstate.nn._group_norm import GroupNorm
from oryxstate.nn._layer_norm import LayerNorm, RMSNorm
from oryxstate.nn._linear import Dense
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._recipes._torch import LIBRARY as TORCH
from oryxstate.nn._recipes._torch import lengths, singular_vectors
from oryxstate.nn._recipes._walk import Library, resting, to, under
from oryxstate.nn._spectral import SpectralNorm, WeightNorm


def equinox_mapping(model: Any) -> list[Rule]:
    """Return the rules that lead from an Equinox module to a model of the same structure.

    The source is the module itself, and the paths are equal. The running statistics of a
    `BatchNorm` and the vectors of a `SpectralNorm` are in Equinox's `State`: give
    `{**named_leaves(module), "norm.mean": mean, "norm.variance": variance, "spectral.u": u,
    "spectral.v": v}`. Where names differ, put rules of your own (`mapping.Rename`) before these.
    For the other way, use `mapping.inverse`.

    Args:
        model: the model, whose arrays may be specs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2, use_bias=False))(jax.random.key(0), jnp.ones(3))
        >>> nn.equinox_mapping([model])
        [Transpose(pattern='[0].weight', axes=None), Rename(old='[0].weight', new='[0].kernel')]
    """
    return LIBRARY.rules(model)


def _conv(layer: Convolution, ours: str, theirs: str) -> list[Rule]:
    ndim = len(layer.kernel.shape)  # from [out, in / groups, ...]; of transposed ones too
    order = partial(Transpose, axes=(*range(2, ndim), 1, 0))
    found = to(under(theirs, "weight"), under(ours, "kernel"), order)
    if layer.bias is not None:
        flat = partial(Reshape, old=(-1, *(1,) * (ndim - 2)), new=(-1,))
        found += to(under(theirs, "bias"), under(ours, "bias"), flat)
    return found


def _batch_norm(layer: BatchNorm, ours: str, theirs: str) -> list[Rule]:
    statistics = [
        rule for name in ("mean", "variance") for rule in to(under(theirs, name), under(ours, name))
    ]
    return TORCH.recipes[LayerNorm](layer, ours, theirs) + statistics


def _attention(layer: MultiHeadAttention, ours: str, theirs: str) -> list[Rule]:
    found: list[Rule] = []
    for name, there in (
        ("query", "query_proj"),
        ("key", "key_proj"),
        ("value", "value_proj"),
        ("out", "output_proj"),
    ):
        dense = TORCH.recipes[Dense]
        found += dense(getattr(layer, name), under(ours, name), under(theirs, there))
    return found


def _cell(cell: Any, ours: str, theirs: str) -> list[Rule]:
    found = to(under(theirs, "weight_ih"), under(ours, "kernel"), Transpose)
    found += to(under(theirs, "weight_hh"), under(ours, "recurrent_kernel"), Transpose)
    found += to(under(theirs, "bias"), under(ours, "bias"))
    if isinstance(cell, GRUCell):
        found += to(under(theirs, "bias_n"), under(ours, "recurrent_bias"))
    return found + resting(cell, ours)


def _prelu(layer: PReLU, ours: str, theirs: str) -> list[Rule]:
    return to(under(theirs, "negative_slope"), under(ours, "slope"))


def _weight_norm(layer: WeightNorm, ours: str, theirs: str) -> list[Rule]:
    return lengths(layer, ours, under(theirs, "g")) + _inner(layer, ours, theirs)


def _spectral_norm(layer: SpectralNorm, ours: str, theirs: str) -> list[Rule]:
    vectors = singular_vectors(layer, ours, under(theirs, "u"), under(theirs, "v"))
    return vectors + _inner(layer, ours, theirs)


def _inner(layer: Any, ours: str, theirs: str) -> list[Rule]:
    return LIBRARY.rules(layer.layer, under(ours, "layer"), under(theirs, "layer"))


def _join(path: str, name: str | int) -> str:
    return f"{path}[{name}]" if isinstance(name, int) else under(path, name)


LIBRARY = Library(
    {
        **{kind: TORCH.recipes[kind] for kind in (Dense, Embedding, GroupNorm, LayerNorm, RMSNorm)},
        BatchNorm: _batch_norm,
        Convolution: _conv,
        GRUCell: _cell,
        LSTMCell: _cell,
        MultiHeadAttention: _attention,
        PReLU: _prelu,
        SpectralNorm: _spectral_norm,
        WeightNorm: _weight_norm,
    },
    join=_join,
)
