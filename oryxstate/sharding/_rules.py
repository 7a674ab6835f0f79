"""Rules from the logical names of axes to the axes of a mesh, and what they make of one array."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import EllipsisType, MappingProxyType
from typing import Any

from jax.sharding import PartitionSpec

from oryxstate._module._axes import Named

Rules = Mapping[str | EllipsisType, str | tuple[str, ...] | None]

DATA_PARALLEL: Rules = MappingProxyType({"batch": "data"})
"""Every device of the mesh axis "data" has all parameters, and a part of the batch."""

FSDP: Rules = MappingProxyType({"batch": "data", ...: "data"})
"""Every device of "data" has a part of the batch and of each array, which is gathered for use."""

TENSOR_PARALLEL: Rules = MappingProxyType(
    {"mlp": "model", "heads": "model", "kv_heads": "model", "vocab": "model"}
)
"""The devices of "model" share the features of layers: Megatron's columns and rows."""


def checked(rules: Rules, mesh: Any, found: list[Named]) -> dict[Any, tuple[str, ...]]:
    """Return the rules that name mesh axes, with these axes as tuples.

    Raises:
        TypeError: for a value that names no mesh axes.
        ValueError: for a mesh axis that is not there, or is named twice.
    """
    placed = {name: _tuple(name, axes) for name, axes in rules.items() if axes is not None}
    for name, axes in placed.items():
        for axis in axes:
            if axis not in mesh.shape:
                raise ValueError(_missing(name, axis, mesh, found))
    return placed


def _tuple(name: Any, axes: Any) -> tuple[str, ...]:
    given = (axes,) if isinstance(axes, str) else axes
    shown = "..." if name is ... else repr(name)
    if not (isinstance(given, tuple | list) and all(isinstance(axis, str) for axis in given)):
        raise TypeError(
            f"the rule for {shown} is a mesh axis, a tuple of them, or None, but got {axes!r}: "
            f'write `{{{shown}: "model"}}` or `{{{shown}: ("data", "model")}}`.'
        )
    if len({*given}) < len(given):
        raise ValueError(f"the rule for {shown} names a mesh axis twice: {given!r}.")
    return tuple(given)


def _missing(name: Any, axis: str, mesh: Any, found: list[Named]) -> str:
    shown = "..." if name is ... else repr(name)
    first = next((each.path for each in found if name is ... or name in each.names), None)
    meant = "" if first is None else f", such as that of `{first}`,"
    return (
        f"a rule puts axes {shown}{meant} on the mesh axis '{axis}', but the mesh has the axes "
        f"{dict(mesh.shape)}. Name one of these, or take the rule out: "
        f"`{{**rules, {shown}: None}}`."
    )


def spec_of(each: Named, rules: Mapping[Any, tuple[str, ...]], sizes: Any) -> PartitionSpec:
    """Return the mesh axes of each axis of an array.

    Rules for names apply in their order, and use each mesh axis once. The rule of `...` then takes
    the largest axis that is free and divides, of arrays with several axes that are not stacked.

    Raises:
        ValueError: if a rule for a name does not divide the axis.
    """
    shape = each.leaf.shape
    placed: list[Any] = [None] * len(shape)
    used: set[str] = set()
    for name, axes in rules.items():
        for i, own in enumerate(each.names):
            if own == name and placed[i] is None and not used & {*axes}:
                _check_divides(each, i, axes, sizes)
                placed[i] = axes
                used |= {*axes}
    axes = rules.get(..., ())
    own = range(each.stacked, len(shape))
    if axes and not used & {*axes} and len(own) > 1:
        free = [i for i in own if placed[i] is None and shape[i] % _count(axes, sizes) == 0]
        if free:
            placed[max(free, key=lambda i: shape[i])] = axes
    while placed and placed[-1] is None:
        placed.pop()
    return PartitionSpec(*(axes[0] if axes and len(axes) == 1 else axes for axes in placed))


def _count(axes: tuple[str, ...], sizes: Any) -> int:
    return math.prod(sizes[axis] for axis in axes)


def _check_divides(each: Named, i: int, axes: tuple[str, ...], sizes: Any) -> None:
    size, count, name = each.leaf.shape[i], _count(axes, sizes), each.names[i]
    if size % count:
        on = " and ".join(f"'{axis}'" for axis in axes)
        raise ValueError(
            f"`{each.path}` of shape {tuple(each.leaf.shape)} has {size} elements along axis {i}, "
            f"'{name}', which {count} devices along the mesh axis {on} cannot share. Change the "
            f"size or the mesh, leave this name whole, `{{**rules, '{name}': None}}`, or give the "
            "layer other names."
        )
