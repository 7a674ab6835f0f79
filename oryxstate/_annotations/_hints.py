"""The annotations of classes and functions, as far as they can be evaluated."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from oryxstate import _signatures
from oryxstate._annotations import _generics


class Unresolved(NamedTuple):
    """An annotation with a name that is not defined, or not yet.

    Attributes:
        text: of the annotation.
        error: why it cannot be evaluated.
    """

    text: str
    error: str


def of_function(
    function: Callable[..., Any], owner: type | None = None, args: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Evaluate the annotations of a function or a method, that of the output under `return`.

    Args:
        function: the function.
        owner: the class whose method it is.
        args: the type arguments of that class, `owner[args]`.
    """
    function = inspect.unwrap(function)
    if not isinstance(function, types.FunctionType):
        hints = _signatures.annotations_of(function)
        return {name: _evaluated(hint, {}, {}) for name, hint in hints.items()}
    known = _known.get(function)
    if known is None:
        own = _names(owner, function)
        known = {
            name: _evaluated(hint, _seen(function), own)
            for name, hint in _signatures.annotations_of(function).items()
        }
        _keep(function, known)
    return known if owner is None else _generics.of_method(owner, function, known, args)


def of_fields(cls: Any, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Evaluate the annotations of the fields of `cls[args]`, the inherited ones too."""
    known = _known.get(cls)
    if known is None:
        known = {}
        for owner in reversed(cls.__mro__):
            space, own = _around(owner), _names(owner)
            for name, hint in _signatures.annotations_of(owner).items():
                known[name] = _evaluated(hint, space, own)
        _keep(cls, known)
    if not args and not any("__orig_bases__" in vars(base) for base in cls.__mro__):
        return known
    return {name: _generics.of_field(cls, name, hint, args) for name, hint in known.items()}


_known: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def _keep(annotated: Any, hints: dict[str, Any]) -> None:
    if not any(isinstance(hint, Unresolved) for hint in hints.values()):  # or it may be later
        _known[annotated] = hints


def _seen(function: types.FunctionType) -> dict[str, Any]:
    """Collect the names that a function sees, those of a function around it too."""
    return {**function.__globals__, **inspect.getclosurevars(function).nonlocals}


def _around(owner: type) -> dict[str, Any]:
    """Collect the names that are visible where a class was defined, in a file or not."""
    found: dict[str, Any] = {}
    for method in map(inspect.unwrap, filter(inspect.isfunction, vars(owner).values())):
        if method.__qualname__.startswith(f"{owner.__qualname__}."):  # none that was generated
            found = {**_seen(method), **found}
    return {**found, **vars(sys.modules.get(owner.__module__, types))}


def _names(owner: type | None, *more: Any) -> dict[str, Any]:
    """Collect the names that a class defines itself."""
    generic = [p for x in (owner, *more) for p in getattr(x, "__type_params__", ())]
    own = {} if owner is None else {**vars(owner), owner.__name__: owner}
    return {**{p.__name__: p for p in generic}, **own}


def _evaluated(hint: Any, space: dict[str, Any], names: dict[str, Any]) -> Any:
    if isinstance(hint, dataclasses.InitVar):
        hint = hint.type
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        # Each alone: one that cannot be evaluated does not hide the others.
        found = typing.get_type_hints(holder, space, names, include_extras=True)["hint"]
    except Exception as error:
        text = getattr(hint, "__forward_arg__", None) or str(hint)
        return Unresolved(text, f"{type(error).__name__}: {error}")
    if isinstance(found, dataclasses.InitVar):
        return _evaluated(found, space, names)
    return found if is_required(found) is not None else meant(found)


def is_required(hint: Any) -> bool | None:
    """Whether an annotation of a key in a TypedDict says that it must, or need not, be there.

    Where annotations are strings, `__required_keys__` does not know.
    """
    origin = typing.get_origin(hint)
    return {typing.Required: True, typing.NotRequired: False}.get(origin)


def meant(hint: Any) -> Any:
    """Return the annotation that a type alias (`type V = ...`) or a `NewType` stands for."""
    try:
        return _generics.meant(hint)
    except NameError as error:  # Python evaluates an alias only when it is asked
        return Unresolved(str(hint), f"{type(error).__name__}: {error}")
