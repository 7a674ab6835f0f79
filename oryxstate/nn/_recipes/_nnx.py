"""Weights of Flax NNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from oryxstate.mapping._rule import Add, Rule
from oryxstate.nn._activation import PReLU
from oryxstate.nn._attention import MultiHeadAttention
from oryxstate.nn._cells import GRUCell, LSTMCell, SimpleRNNCell
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._recipes._flax import attention, lstm, prelu, sequences, weight_norm
from oryxstate.nn._recipes._walk import Library, resting, to, under
from oryxstate.nn._recurrent import Gated
from oryxstate.nn._spectral import WeightNorm


def nnx_mapping(model: Any) -> list[Rule]:
    """Return the rules that lead from the state of a Flax NNX model to a model.

    The source is `nnx.to_pure_dict(nnx.state(their_model))`. Paths in it are those of the model
    with `.0` for `[0]`. Where names differ, put rules of your own (`mapping.Rename`) before these,
    and `mapping.Drop` what only NNX keeps, such as the counts of random keys. For the other way,
    use `mapping.inverse`. A `SpectralNorm` of NNX keeps the singular value in place of a vector, so
    no rules lead from it.

    Args:
        model: the model, whose arrays may be specs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2, use_bias=False))(jax.random.key(0), jnp.ones(3))
        >>> nn.nnx_mapping([model])
        [Rename(old='0.kernel', new='[0].kernel')]
    """
    return LIBRARY.rules(model)


def _batch_norm(layer: BatchNorm, ours: str, theirs: str) -> list[Rule]:
    found: list[Rule] = []
    for name, there in (
        ("scale", "scale"),
        ("bias", "bias"),
        ("mean", "mean"),
        ("variance", "var"),
    ):
        if getattr(layer, name) is not None:
            found += to(under(theirs, there), under(ours, name))
    return found


def _fused(cell: Gated, ours: str, theirs: str) -> list[Rule]:
    found = [
        *to(under(theirs, "dense_i.kernel"), under(ours, "kernel")),
        *to(under(theirs, "dense_h.kernel"), under(ours, "recurrent_kernel")),
        *to(under(theirs, "dense_i.bias"), under(ours, "bias")),
    ]
    if isinstance(cell, GRUCell):  # NNX has no bias there
        zeros = np.zeros(cell.recurrent_bias.shape, cell.recurrent_bias.dtype)
        found.append(Add(under(ours, "recurrent_bias"), zeros))
    return found + resting(cell, ours)


LIBRARY = Library(
    {
        BatchNorm: _batch_norm,
        GRUCell: _fused,
        LSTMCell: lstm(str, ("i", "f_", "g", "o")),
        MultiHeadAttention: attention(str),
        PReLU: prelu(str),
        SimpleRNNCell: _fused,
        WeightNorm: weight_norm(
            lambda path, field: under(path, f"scales.('{field}',)"), lambda: LIBRARY
        ),
        **sequences(lambda: LIBRARY),
    },
    join=lambda path, name: under(path, str(name)),
)
