"""Weights that are put into a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

from oryxstate._tree import named_leaves
from oryxstate._weights._source import read
from oryxstate.mapping._convert import follow
from oryxstate.mapping._entries import Entry
from oryxstate.mapping._match import Report, compare
from oryxstate.mapping._rule import Rule
from oryxstate.mapping._targets import is_weight, put

M = TypeVar("M")


def load_weights(
    model: M,
    source: Any,
    mapping: Sequence[Rule] = (),
    *,
    select: Any = None,
    report: Callable[[Report], Any] | None = None,
) -> M:
    """Put weights from elsewhere into a model.

    No code from a file is run. Everything is compared before an array is read.

    Args:
        model: the model; its arrays may be specs, from `jax.eval_shape`.
        source: the path of a safetensors file, a dictionary of arrays that may be nested (its keys
            are joined with dots), or any other pytree, such as an Equinox module. Random keys in
            it are ignored.
        mapping: rules that lead from the paths and layouts of the source to those of the model:
            your own (`oryxstate.mapping`), and those of a library, such as
            `nn.torch_mapping(model)`.
        select: which leaves to load, a predicate on paths or a selection (an object with a method
            `paths(model)`). If None, all arrays; random keys stay as they are.
        report: called with a `mapping.Report` of what was loaded, such as `print`.

    Returns:
        A model like the given one, with its dtypes and shardings. Its arrays share no memory with
        those of the source.

    Raises:
        MismatchError: listing every path that is missing, left over, or of another shape or dtype.
        CheckpointError: if the file is damaged.
        ValueError: if a rule or the selection matches nothing.

    Examples:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
        >>> state_dict = {"weight": np.ones((2, 3), "float32"), "bias": np.zeros(2, "float32")}
        >>> ox.load_weights(model, state_dict, nn.torch_mapping(model))(jnp.ones(3))
        Array([3., 3.], dtype=float32)
    """
    arrays, name = read(source)
    entries = follow(mapping, {p: Entry.saved(p, x.shape, x.dtype.name) for p, x in arrays.items()})
    leaves = named_leaves(model)
    done = compare(entries, model, Weights(select), name)
    for path in done.loaded:
        leaves[path] = put(entries[path].value(arrays), leaves[path], path)
    if report is not None:
        report(done)
    return jax.tree.unflatten(jax.tree.structure(model), leaves.values())


class Weights:
    """The leaves to load: those of a given selection, or else all arrays but random keys."""

    def __init__(self, select: Any):
        self._select = select

    def paths(self, model: Any) -> list[str]:
        """Return the paths of a model that are selected."""
        leaves = named_leaves(model)
        if hasattr(self._select, "paths"):
            return list(self._select.paths(model))
        if self._select is not None:
            return [path for path in leaves if self._select(path)]
        return [path for path, leaf in leaves.items() if is_weight(leaf)]

    def wants(self, path: str) -> bool:
        """Tell whether a path of the source that the model lacks is left over."""
        if self._select is None:
            return True
        return not hasattr(self._select, "paths") and self._select(path)
