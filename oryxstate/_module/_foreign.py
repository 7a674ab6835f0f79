"""Equinox modules with functions and numbers among their leaves, as children of our modules.

Equinox keeps activation functions and rates as leaves and filters them out at every transformation.
The data of our modules is arrays only, so such a child is split: its arrays are data, the rest is
static, and reading the field puts the two together again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from oryxstate import _lazy, _tree
from oryxstate._module._static import type_key

if TYPE_CHECKING:
    import equinox as eqx
else:
    eqx = _lazy.Lazy("equinox")


class Rest(NamedTuple):
    """What is not data in a field, hashable."""

    field: str
    leaves: tuple[Any, ...]
    types: tuple[Any, ...]
    treedef: Any


def split(field: str, value: Any, is_module: Any) -> tuple[Any, Rest] | None:
    """`(data, rest)` of a child with Equinox modules that hold more than arrays, else None."""
    if _kind() is None or not any(map(is_equinox, _nodes(value, is_module))):
        return None
    data, rest = eqx.partition(
        value, lambda x: is_module(x) or _tree.is_array(x), is_leaf=is_module
    )
    leaves, treedef = jax.tree.flatten(rest)
    if not leaves:
        return None
    return data, Rest(field, tuple(leaves), tuple(map(type_key, leaves)), treedef)


def join(data: Any, rest: Rest, is_module: Any) -> Any:
    """The value of the field."""
    static = jax.tree.unflatten(rest.treedef, rest.leaves)
    return eqx.combine(data, static, is_leaf=is_module)


def stray(value: Any, is_module: Any) -> list[tuple[tuple, Any]]:
    """The leaves that are no arrays and stand in no Equinox module, with their paths."""

    def is_leaf(x: Any) -> bool:
        return is_module(x) or is_equinox(x)

    leaves = jax.tree_util.tree_flatten_with_path(value, is_leaf=is_leaf)[0]
    return [(path, x) for path, x in leaves if not (is_leaf(x) or _tree.is_array(x))]


def is_equinox(value: Any) -> bool:
    """Whether something is an Equinox module. While Equinox is not imported, nothing is."""
    kind = _kind()
    return kind is not None and isinstance(value, kind)


def _kind() -> type | None:
    return getattr(sys.modules.get("equinox"), "Module", None)


def _nodes(value: Any, is_module: Any) -> list[Any]:
    return jax.tree.leaves(value, is_leaf=lambda x: is_module(x) or is_equinox(x))
