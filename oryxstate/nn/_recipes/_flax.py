"""Weights of Flax Linen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from oryxstate.mapping._groups import Merge
from oryxstate.mapping._layouts import Reshape
from oryxstate.mapping._rule import Rule
from oryxstate.nn._activation import PReLU
from oryxstate.nn._attention import MultiHeadAttention
from oryxstate.nn._bidirectional import Bidirectional
from oryxstate.nn._cells import GRUCell, LSTMCell, SimpleRNNCell
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._recipes._walk import Library, Recipe, resting, to, under
from oryxstate.nn._rnn import RNN
from oryxstate.nn._spectral import WeightNorm


def flax_mapping(model: Any) -> list[Rule]:
    """Return the rules that lead from the variables of Flax Linen to a model.

    The variables are `{"params": ..., "batch_stats": ...}`, as `init` of Linen returns them. Paths
    in them are those of the model with `_0` for `[0]`, as Linen names the members of a list. Where
    names differ, put rules of your own (`mapping.Rename("params.Dense_0.**", "params.head.**")`)
    before these. For the other way, use `mapping.inverse`. A `SpectralNorm` of Flax keeps the
    singular value in place of a vector, so no rules lead from it.

    Args:
        model: the model, whose arrays may be specs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2, use_bias=False))(jax.random.key(0), jnp.ones(3))
        >>> nn.flax_mapping([model])
        [Rename(old='params._0.kernel', new='[0].kernel')]
    """
    return LIBRARY.rules(model)


def in_params(path: str) -> str:
    """Return the path of a parameter in Linen's variables."""
    return under("params", path)


def attention(place: Any) -> Recipe:
    """Return the recipe of attention whose kernels have an axis of heads."""

    def rules(layer: MultiHeadAttention, ours: str, theirs: str) -> list[Rule]:
        found: list[Rule] = []
        for name, heads in (
            ("query", layer.heads),
            ("key", layer.kv_heads),
            ("value", layer.kv_heads),
            ("out", layer.heads),
        ):
            dense = getattr(layer, name)
            rows, columns = dense.kernel.shape
            split = (
                (heads, rows // heads, columns)
                if name == "out"
                else (rows, heads, columns // heads)
            )
            flat = partial(Reshape, old=split, new=(rows, columns))
            here, there = under(ours, name), place(under(theirs, name))
            found += to(under(there, "kernel"), under(here, "kernel"), flat)
            if dense.bias is not None:
                split = (columns,) if name == "out" else split[1:]
                flat = partial(Reshape, old=split, new=(columns,))
                found += to(under(there, "bias"), under(here, "bias"), flat)
        return found

    return rules


def weight_norm(scale: Callable[[str, str], str], library: Callable[[], Library]) -> Recipe:
    """Return the recipe of WeightNorm.

    Args:
        scale: returns the path of the norms from those of the layer and its kernel over there.
        library: returns the recipes of the layer inside.
    """

    def rules(layer: WeightNorm, ours: str, theirs: str) -> list[Rule]:
        inner = library().rules(layer.layer, under(ours, "layer"), under(theirs, "layer_instance"))
        return inner + to(scale(theirs, layer.field), under(ours, "scale"))

    return rules


def prelu(place: Any) -> Recipe:
    """Return the recipe of PReLU."""
    return lambda layer, ours, theirs: to(
        place(under(theirs, "negative_slope")), under(ours, "slope")
    )


def lstm(place: Any, gates: tuple[str, ...]) -> Recipe:
    """Return the recipe of an LSTM with a dense layer for each gate."""

    def rules(cell: LSTMCell, ours: str, theirs: str) -> list[Rule]:
        def of(kind: str, what: str) -> tuple[str, ...]:
            return tuple(place(under(theirs, f"{kind}{gate}.{what}")) for gate in gates)

        hidden = tuple(place(under(theirs, f"h{gate[0]}")) for gate in gates)
        return [
            Merge(of("i", "kernel"), under(ours, "kernel"), 1),
            Merge(tuple(f"{name}.kernel" for name in hidden), under(ours, "recurrent_kernel"), 1),
            Merge(tuple(f"{name}.bias" for name in hidden), under(ours, "bias"), 0),
            *resting(cell, ours),
        ]

    return rules


def _gru(cell: GRUCell, ours: str, theirs: str) -> list[Rule]:
    def of(kind: str, what: str) -> tuple[str, ...]:
        return tuple(in_params(under(theirs, f"{kind}{gate}.{what}")) for gate in "rzn")

    return [
        Merge(of("i", "kernel"), under(ours, "kernel"), 1),
        Merge(of("h", "kernel"), under(ours, "recurrent_kernel"), 1),
        Merge(of("i", "bias"), under(ours, "bias"), 0),
        *to(of("h", "bias")[2], under(ours, "recurrent_bias")),
        *resting(cell, ours),
    ]


def _simple(cell: SimpleRNNCell, ours: str, theirs: str) -> list[Rule]:
    return [
        *to(in_params(under(theirs, "i.kernel")), under(ours, "kernel")),
        *to(in_params(under(theirs, "h.kernel")), under(ours, "recurrent_kernel")),
        *to(in_params(under(theirs, "i.bias")), under(ours, "bias")),
        *resting(cell, ours),
    ]


def _batch_norm(layer: BatchNorm, ours: str, theirs: str) -> list[Rule]:
    found: list[Rule] = []
    for name in ("scale", "bias"):
        if getattr(layer, name) is not None:
            found += to(in_params(under(theirs, name)), under(ours, name))
    found += to(f"batch_stats.{under(theirs, 'mean')}", under(ours, "mean"))
    return found + to(f"batch_stats.{under(theirs, 'var')}", under(ours, "variance"))


def sequences(library: Any) -> dict[type, Recipe]:
    """Return the recipes of layers that run cells over sequences."""

    def rnn(layer: RNN, ours: str, theirs: str) -> list[Rule]:
        return library().rules(layer.cell, under(ours, "cell"), under(theirs, "cell"))

    def bidirectional(layer: Bidirectional, ours: str, theirs: str) -> list[Rule]:
        forward = rnn(layer.forward, under(ours, "forward"), under(theirs, "forward_rnn"))
        return forward + rnn(layer.backward, under(ours, "backward"), under(theirs, "backward_rnn"))

    return {RNN: rnn, Bidirectional: bidirectional}


def _join(path: str, name: str | int) -> str:
    return f"{path}_{name}" if isinstance(name, int) else under(path, name)


# What is not here has the same names and layouts: Dense, convolutions, norms, Embed, Einsum.
LIBRARY = Library(
    {
        BatchNorm: _batch_norm,
        GRUCell: _gru,
        LSTMCell: lstm(in_params, ("i", "f", "g", "o")),
        MultiHeadAttention: attention(in_params),
        PReLU: prelu(in_params),
        SimpleRNNCell: _simple,
        WeightNorm: weight_norm(
            lambda path, field: in_params(under(path, f"layer_instance/{field}/scale")),
            lambda: LIBRARY,
        ),
        **sequences(lambda: LIBRARY),
    },
    join=_join,
    leaf=in_params,
)
