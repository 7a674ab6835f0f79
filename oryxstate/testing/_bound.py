"""Names of axes and of structures, bound by the values of annotations."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import typing
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jaxtyping

from oryxstate._annotations import _hints
from oryxstate.testing import _arrays
from oryxstate.testing._dimensions import Axis, Scope, axes_of

OWN_NAMES: list[type] = []
"""Classes whose fields have names of axes of their own, as modules do."""

_LONGEST = 64  # the largest length that is tried for the name in an expression


class _Found(NamedTuple):
    """An array in a value.

    Attributes:
        axes: of its annotation.
        shape: of the array.
        leaf: which leaf of a named structure it is, for axes named `?n`.
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    leaf: str


def bind(hint: Any, value: Any, scope: Scope) -> None:
    """Bind the names in an annotation to the lengths in a value of it."""
    bind_all([(hint, value)], scope)


def bind_all(pairs: Iterable[tuple[Any, Any]], scope: Scope) -> None:
    """Bind the names in several annotations; `n-1` binds `n` if no array does so by its name."""
    found: list[_Found] = []
    for hint, value in pairs:
        _collect(hint, value, scope, found)
    single = [pair for array in found for pair in _singles(array, scope)]
    for axis, length, leaf in single:
        if axis.named:
            scope.bind(f"{leaf}{axis.text}" if axis.of_leaf else axis.text, length)
    for axis, length, _ in single:
        if not (axis.named or axis.anonymous):
            _solve(axis.text, length, scope)


def _collect(hint: Any, value: Any, scope: Scope, found: list[_Found], leaf: str = "") -> None:
    """Collect the arrays in a value, with their annotations."""
    hint = _hints.meant(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if _arrays.is_union(hint):
        parts = [(arm, value) for arm in args]
    elif origin is typing.Annotated:
        parts = [(args[0], value)]
    elif isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        if hasattr(value, "shape"):
            found.append(_Found(axes_of(hint.dim_str), _without_leading(value, scope), leaf))
        return
    elif isinstance(hint, type) and issubclass(hint, jaxtyping.PyTree):
        _collect_tree(hint, value, scope, found)
        return
    else:
        parts = list(_parts(origin, args, value) if args else ()) or _fields(hint, value)
    for inner, part in parts:
        _collect(inner, part, scope, found, leaf)


def _without_leading(array: Any, scope: Scope) -> tuple[int, ...]:
    """Return the shape of an array without the axes that annotations leave out."""
    count = len(scope.leading)
    shape = tuple(array.shape)
    return shape[count:] if shape[:count] == scope.leading else shape


def _collect_tree(hint: Any, value: Any, scope: Scope, found: list[_Found]) -> None:
    names = getattr(hint, "structure", None)
    if names is not None and names.isidentifier():
        scope.trees.setdefault(names, jax.tree.structure(value))
    inner = getattr(hint, "leaftype", Any)
    for i, part in enumerate(jax.tree.leaves(value)):
        _collect(inner, part, scope, found, _arrays.leaf_name(names, i) or "")


def _parts(origin: Any, args: tuple, value: Any) -> Iterable[tuple[Any, Any]]:
    """Yield the elements of a container, each with its annotation."""
    known = isinstance(origin, type) and issubclass(origin, collections.abc.Collection)
    if not known or typing.is_typeddict(origin) or not isinstance(value, origin):
        return
    if isinstance(value, collections.abc.Mapping) and len(args) == 2:
        yield from ((args[1], part) for part in value.values())
    elif origin is tuple and args[-1] is not ...:
        yield from zip(args, value, strict=False)
    elif len(args) == 1 or origin is tuple:
        yield from ((args[0], part) for part in value)


def _fields(hint: Any, value: Any) -> list[tuple[Any, Any]]:
    """Return the fields of a dataclass, a NamedTuple or a TypedDict."""
    kind = typing.get_origin(hint) or hint
    if not is_plain(kind):
        return []
    hints = _hints.of_fields(kind, typing.get_args(hint))
    if typing.is_typeddict(kind):
        known = value if isinstance(value, dict) else {}
        return [(hints[name], part) for name, part in known.items() if name in hints]
    if not isinstance(value, kind):
        return []
    return [(hints[name], getattr(value, name)) for name in hints if hasattr(value, name)]


def is_plain(kind: Any) -> bool:
    """Whether a class is a dataclass, a NamedTuple or a TypedDict without names of its own."""
    if not isinstance(kind, type) or any(own in kind.__mro__ for own in OWN_NAMES):
        return False
    return dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") or typing.is_typeddict(kind)


def _singles(array: _Found, scope: Scope) -> Iterable[tuple[Axis, int, str]]:
    """Yield the axes of an array with their lengths, if it fits, and bind a variadic one."""
    axes, shape = array.axes, array.shape
    at = next((i for i, axis in enumerate(axes) if axis.variadic), len(axes))
    end = len(shape) - (len(axes) - at - 1)  # of what a variadic axis stands for
    if (at == len(axes) and len(shape) != at) or end < at:
        return
    if at < len(axes) and axes[at].named and not axes[at].broadcastable:
        scope.bind(axes[at].text, shape[at:end])
    pairs = [*zip(axes[:at], shape[:at], strict=True)]
    pairs += zip(axes[at + 1 :], shape[end:], strict=True)
    # Of `#name` it is not known whether the length is that of the name.
    yield from ((axis, n, array.leaf) for axis, n in pairs if not axis.broadcastable)


def _solve(expression: str, length: int, scope: Scope) -> None:
    """Bind the one open name in an expression to the smallest length that gives this one."""
    if "{" in expression:
        return
    code = ast.parse(expression, mode="eval")
    names = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
    unknown = [name for name in names - scope.axes.keys() if not hasattr(builtins, name)]
    if len(unknown) == 1:
        tried = ({**scope.axes, unknown[0]: n} for n in range(1, _LONGEST))
        fits = (lengths for lengths in tried if _value(expression, lengths) == length)
        for lengths in fits:
            scope.bind(unknown[0], lengths[unknown[0]])
            return


def _value(expression: str, lengths: dict[str, int]) -> Any:
    try:
        return eval(expression, dict(lengths))
    except ArithmeticError:
        return None
