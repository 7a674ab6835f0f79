"""What are the annotations of a class or a function, as far as they can be evaluated?"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple


class Unresolved(NamedTuple):
    """An annotation that names what is not there.

    Attributes:
        text: of the annotation.
        error: why it cannot be evaluated.
    """

    text: str
    error: str


def field_hints(cls: type) -> dict[str, Any]:
    """The annotations of the fields of a class, with those that it inherits."""
    found = {}
    for base in reversed(cls.__mro__):
        names = {**vars(sys.modules.get(base.__module__, typing)), **_seen(base)}
        for name, hint in inspect.get_annotations(base).items():
            found[name] = _evaluated(hint, names)
    return found


def _seen(kind: type) -> dict[str, Any]:
    """The names that the methods of a class see, such as those of the function it stands in."""
    found: dict[str, Any] = {kind.__name__: kind}
    for method in map(inspect.unwrap, filter(inspect.isfunction, vars(kind).values())):
        if method.__qualname__.startswith(f"{kind.__qualname__}."):  # none that was generated
            found = {**method.__globals__, **inspect.getclosurevars(method).nonlocals, **found}
    return found


def parameter_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the parameters of a function, or of a method."""
    function = inspect.unwrap(function)
    names = {**getattr(function, "__globals__", {})}
    if inspect.isfunction(function):
        names |= inspect.getclosurevars(function).nonlocals
    hints = getattr(function, "__annotations__", {})
    return {name: _evaluated(hint, names) for name, hint in hints.items() if name != "return"}


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    if isinstance(hint, dataclasses.InitVar):
        hint = hint.type
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        # Each alone: one that cannot be evaluated does not hide the others.
        found = typing.get_type_hints(holder, dict(names), {}, include_extras=True)["hint"]
    except Exception as error:
        return Unresolved(str(hint), f"{type(error).__name__}: {error}")
    return _evaluated(found, names) if isinstance(found, dataclasses.InitVar) else found
