"""The logical names of the axes of arrays, from the metadata of the fields that hold them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from oryxstate import _tree
from oryxstate._module import _fields, _pytree
from oryxstate._select._places import children

STACK = "stack"  # of modules, as under `jax.vmap`
STACKS = STACK, "layers", "batch"
Names = tuple[str | None, ...]


class Named(NamedTuple):
    """A leaf of a tree with the names of its axes.

    Attributes:
        path: as `oryxstate.named_leaves` gives it.
        leaf: an array, the spec of one, or anything else.
        names: one for each axis of an array, None for an axis without a name.
        stacked: the number of leading axes along which modules are stacked.
    """

    path: str
    leaf: Any
    names: Names
    stacked: int


class _Around(NamedTuple):
    """What is declared around a node.

    Attributes:
        axes: the names of the field that it is in, None outside of modules.
        is_state: whether that field is state.
        stack: the names of the axes along which the modules around it are stacked.
        state_stack: the same for their state alone.
    """

    axes: Any = None
    is_state: bool = False
    stack: Names = ()
    state_stack: Names = ()

    def inside(self, key: Any) -> _Around:
        """Return the same for an item of a dictionary."""
        axes = self.axes
        return self._replace(axes=axes.get(key)) if isinstance(axes, Mapping) else self


def named(tree: Any) -> list[Named]:
    """Return the leaves of a tree, in the order of `jax.tree.leaves`, with the names of their axes.

    An array with more axes than its field has names belongs to stacked modules: the additional
    leading axes are those of `nn.Repeat` ("layers") and `per_example` ("batch"), and "stack"
    elsewhere, as under `jax.vmap`. An array with fewer axes, such as a factored statistic of an
    optimizer, has no names.
    """
    found: list[Named] = []
    _walk(tree, (), _Around(), found)
    return found


def _walk(node: Any, keys: tuple, around: _Around, found: list[Named]) -> None:
    if node is None:
        return
    inner = children(node)
    if inner is None:
        found.append(Named(_tree.keystr(keys), node, *_resolved(node, around)))
        return
    if _pytree.is_module(node):
        for name, (key, child) in zip(node.__layout__.data, inner, strict=True):
            _walk(child, keys + key, _in_field(node, name, around), found)
        return
    for key, child in inner:
        _walk(child, keys + key, around.inside(getattr(key[-1], "key", None)), found)


def _in_field(module: Any, field: str, around: _Around) -> _Around:
    info = module.__layout__.infos[field]
    axes = _returned(module, field, info.axes) if callable(info.axes) else info.axes
    stack, state = module.__stacked__.get(field), module.__state_stacked__.get(field)
    return _Around(
        axes,
        around.is_state or info.is_state,
        around.stack if stack is None else (*around.stack, stack),
        around.state_stack if state is None else (*around.state_stack, state),
    )


def _returned(module: Any, field: str, axes: Callable[[Any], Any]) -> Any:
    """Return what a function of the module gives: names, a dictionary of them, or None."""
    names = axes(module)
    if names is None or isinstance(names, Mapping):
        return names
    where = f"the function that gives the axes of {type(module).__name__}.{field} returns {names!r}"
    return _fields.checked_axes(where, names)


def _resolved(leaf: Any, around: _Around) -> tuple[Names, int]:
    """Return the names of a leaf and the number of stacked axes."""
    stack = around.stack + (around.state_stack if around.is_state else ())
    ndim, axes = len(getattr(leaf, "shape", ())), around.axes
    rest = ndim - len(stack)
    axes = (...,) if axes is None or isinstance(axes, Mapping) else tuple(axes)
    if ... in axes:
        at = axes.index(...)
        axes = (*axes[:at], *(None,) * (rest - len(axes) + 1), *axes[at + 1 :])
    more = rest - len(axes)
    if more < 0:
        return (None,) * ndim, 0
    names: tuple[Any, ...] = (*(STACK,) * more, *stack, *axes)
    return names, sum(1 for _ in itertools.takewhile(lambda name: name in STACKS, names))
