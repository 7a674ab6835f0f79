"""Weights of PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

from oryxstate.mapping._groups import Merge, Split, Sum
from oryxstate.mapping._layouts import Flip, Reshape, Transpose
from oryxstate.mapping._rule import Drop, Rename, Rule
from oryxstate.nn._activation import PReLU
from oryxstate.nn._attention import MultiHeadAttention
from oryxstate.nn._bidirectional import Bidirectional
from oryxstate.nn._cells import GRUCell
from oryxstate.nn._conv import Convolution
from oryxstate.nn._conv_transpose import ConvTranspose
from oryxstate.nn._embedding import Embedding
from oryxstate.nn._group_norm import GroupNorm, InstanceNorm
from oryxstate.nn._layer_norm import LayerNorm, RMSNorm
from oryxstate.nn._linear import Dense
from oryxstate.nn._linear_variants import Bilinear
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._recipes._walk import Library, resting, to, under
from oryxstate.nn._recurrent import Gated
from oryxstate.nn._rnn import RNN
from oryxstate.nn._spectral import SpectralNorm, WeightNorm


def torch_mapping(model: Any) -> list[Rule]:
    """Return the rules that lead from a PyTorch state dict to a model of the same structure.

    Paths are those of the model with `.0` for `[0]`; the members of a `Serial` are those of an
    `nn.Sequential`, the layers of a `Repeat` those of an `nn.ModuleList`. Where names differ, put
    rules of your own (`mapping.Rename`) before these. For the other way, use `mapping.inverse`.
    They know `Linear`, `Conv1d` to `Conv3d`, `ConvTranspose1d` to `3d`, `Bilinear`, `Embedding`,
    `BatchNorm1d` to `3d`, `LayerNorm`, `RMSNorm`, `GroupNorm`, `InstanceNorm1d` to `3d`, `PReLU`,
    `MultiheadAttention`, `RNNCell`, `GRUCell` and `LSTMCell`, `RNN`, `GRU` and `LSTM` of one layer,
    and the parametrizations `weight_norm` and `spectral_norm`.

    Args:
        model: the model, whose arrays may be specs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2, use_bias=False))(jax.random.key(0), jnp.ones(3))
        >>> nn.torch_mapping([model])
        [Transpose(pattern='0.weight', axes=None), Rename(old='0.weight', new='[0].kernel')]
    """
    return LIBRARY.rules(model)


def _bias(layer: Any, ours: str, theirs: str) -> list[Rule]:
    return [] if layer.bias is None else to(under(theirs, "bias"), under(ours, "bias"))


def _dense(layer: Dense, ours: str, theirs: str) -> list[Rule]:
    kernel = to(under(theirs, "weight"), under(ours, "kernel"), Transpose)
    return kernel + _bias(layer, ours, theirs)


def _conv(layer: Convolution, ours: str, theirs: str) -> list[Rule]:
    ndim = len(layer.kernel.shape)  # from [out, in, ...]
    order = (*range(2, ndim), 1, 0)
    kernel = to(under(theirs, "weight"), under(ours, "kernel"), partial(Transpose, axes=order))
    return kernel + _bias(layer, ours, theirs)


def _conv_transpose(layer: ConvTranspose, ours: str, theirs: str) -> list[Rule]:
    *size, each, out = layer.kernel.shape  # from [in, out / groups, ...]
    groups, spatial = layer.groups, range(len(size))
    name, own = under(theirs, "weight"), out // layer.groups
    rules: list[Rule] = [
        Reshape(name, (groups * each, own, *size), (groups, each, own, *size)),
        Transpose(name, (*(3 + i for i in spatial), 1, 0, 2)),
        Reshape(name, (*size, each, groups, own), (*size, each, out)),
        Flip(name, tuple(spatial)),
    ]
    return rules + to(name, under(ours, "kernel")) + _bias(layer, ours, theirs)


def _bilinear(layer: Bilinear, ours: str, theirs: str) -> list[Rule]:
    order = partial(Transpose, axes=(1, 2, 0))
    return to(under(theirs, "weight"), under(ours, "kernel"), order) + _bias(layer, ours, theirs)


def _scale(layer: Any, ours: str, theirs: str) -> list[Rule]:
    found: list[Rule] = []
    if layer.scale is not None:
        found += to(under(theirs, "weight"), under(ours, "scale"))
    return found + (_bias(layer, ours, theirs) if hasattr(layer, "bias") else [])


def _batch_norm(layer: BatchNorm, ours: str, theirs: str) -> list[Rule]:
    return [
        *_scale(layer, ours, theirs),
        *to(under(theirs, "running_mean"), under(ours, "mean")),
        *to(under(theirs, "running_var"), under(ours, "variance")),
        Drop(under(theirs, "num_batches_tracked")),
    ]


def _embedding(layer: Embedding, ours: str, theirs: str) -> list[Rule]:
    return to(under(theirs, "weight"), under(ours, "embedding"))


def _prelu(layer: PReLU, ours: str, theirs: str) -> list[Rule]:
    name = under(theirs, "weight")  # [1] for one slope
    one = [] if layer.slope.shape else [partial(Reshape, old=(1,), new=())]
    return to(name, under(ours, "slope"), *one)


def _attention(layer: MultiHeadAttention, ours: str, theirs: str) -> list[Rule]:
    names = ("query", "key", "value")
    shapes = [layer.query.kernel.shape, layer.key.kernel.shape, layer.value.kernel.shape]
    kernels = tuple(under(ours, f"{name}.kernel") for name in names)
    if len({inputs for inputs, _ in shapes}) == 1:
        sizes = tuple(outputs for _, outputs in shapes)
        rules: list[Rule] = [Split(under(theirs, "in_proj_weight"), kernels, 0, sizes)]
    else:
        pairs = zip("qkv", kernels, strict=True)
        rules = [Rename(under(theirs, f"{name}_proj_weight"), kernel) for name, kernel in pairs]
    rules += [Transpose(kernel) for kernel in kernels]
    if layer.query.bias is not None:
        biases = tuple(under(ours, f"{name}.bias") for name in names)
        sizes = tuple(outputs for _, outputs in shapes)
        rules.append(Split(under(theirs, "in_proj_bias"), biases, 0, sizes))
    return rules + _dense(layer.out, under(ours, "out"), under(theirs, "out_proj"))


def _cell(cell: Gated, ours: str, theirs: str, suffix: str = "") -> list[Rule]:
    def name(text: str) -> str:
        return under(theirs, text + suffix)

    both = name("bias_ih"), name("bias_hh")
    rules = to(name("weight_ih"), under(ours, "kernel"), Transpose)
    rules += to(name("weight_hh"), under(ours, "recurrent_kernel"), Transpose)
    if isinstance(cell, GRUCell):
        features = cell.recurrent_bias.shape[0]
        sizes, sums = (2 * features, features), under(ours, "gates")
        inputs, hidden = (f"{both[0]}@gates", f"{both[0]}@new"), f"{both[1]}@gates"
        rules += [
            Split(both[0], inputs, 0, sizes),
            Split(both[1], (hidden, under(ours, "recurrent_bias")), 0, sizes),
            Sum((inputs[0], hidden), sums),
            Merge((sums, inputs[1]), under(ours, "bias"), 0, sizes),
        ]
    else:
        rules.append(Sum(both, under(ours, "bias")))
    return rules + resting(cell, ours)


def _rnn(layer: RNN, ours: str, theirs: str, suffix: str = "_l0") -> list[Rule]:
    return _cell(layer.cell, under(ours, "cell"), theirs, suffix)


def _bidirectional(layer: Bidirectional, ours: str, theirs: str) -> list[Rule]:
    forward = _rnn(layer.forward, under(ours, "forward"), theirs)
    return forward + _rnn(layer.backward, under(ours, "backward"), theirs, "_l0_reverse")


def _inner(layer: Any, ours: str, theirs: str, original: str) -> list[Rule]:
    """Return the rules of the layer whose weight is parametrized."""
    weight = to(under(theirs, f"parametrizations.weight.{original}"), under(theirs, "weight"))
    return weight + LIBRARY.rules(layer.layer, under(ours, "layer"), theirs)


def lengths(layer: WeightNorm, ours: str, theirs: str) -> list[Rule]:
    """Return the rules of the norms of kernels, from [features, 1, ...]."""
    features = layer.scale.shape
    ones = (1,) * (len(getattr(layer.layer, layer.field).shape) - 1)
    flat = partial(Reshape, old=(*features, *ones), new=features)
    return to(theirs, under(ours, "scale"), flat)


def _weight_norm(layer: WeightNorm, ours: str, theirs: str) -> list[Rule]:
    scale = under(theirs, "parametrizations.weight.original0")
    return lengths(layer, ours, scale) + _inner(layer, ours, theirs, "original1")


def singular_vectors(layer: SpectralNorm, ours: str, u: str, v: str) -> list[Rule]:
    """Return the rules of singular vectors, those of the inputs from [in, ...] made flat."""
    *size, inputs, _ = getattr(layer.layer, layer.field).shape
    order = (*range(1, len(size) + 1), 0)
    rules: list[Rule] = [
        Reshape(v, layer.v.shape, (inputs, *size)),
        Transpose(v, order),
        Reshape(v, (*size, inputs), layer.v.shape),
    ]
    return rules + to(u, under(ours, "u")) + to(v, under(ours, "v"))


def _spectral_norm(layer: SpectralNorm, ours: str, theirs: str) -> list[Rule]:
    u, v = (under(theirs, f"parametrizations.weight.0.{name}") for name in ("_u", "_v"))
    return singular_vectors(layer, ours, u, v) + _inner(layer, ours, theirs, "original")


LIBRARY = Library(
    {
        BatchNorm: _batch_norm,
        Bidirectional: _bidirectional,
        Bilinear: _bilinear,
        Convolution: _conv,
        ConvTranspose: _conv_transpose,
        Dense: _dense,
        Embedding: _embedding,
        Gated: _cell,
        GroupNorm: _scale,
        InstanceNorm: _scale,
        LayerNorm: _scale,
        MultiHeadAttention: _attention,
        PReLU: _prelu,
        RMSNorm: _scale,
        RNN: _rnn,
        SpectralNorm: _spectral_norm,
        WeightNorm: _weight_norm,
    },
    join=lambda path, name: under(path, str(name)),
    flat=True,
)
