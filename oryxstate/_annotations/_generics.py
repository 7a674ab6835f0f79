"""Type aliases and type variables: the annotations that they stand for."""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable, Mapping
from typing import Any

from oryxstate import _signatures

_QUALIFIERS = [
    getattr(typing, name)
    for name in ("Final", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
]


def meant(hint: Any) -> Any:
    """Return the annotation that a type alias (`type V = ...`) or a `NewType` stands for.

    Qualifiers such as `Final[...]` go; a bare `Final` becomes `Any`. Aliases inside other
    annotations are left as they are: a recursive one has no end.

    Raises:
        NameError: for an alias of something that is not defined.

    Examples:
        >>> from typing import NewType
        >>> meant(NewType("Width", int))
        <class 'int'>
    """
    alias = typing.get_origin(hint) or hint
    if alias in _QUALIFIERS:
        return meant(next(iter(typing.get_args(hint)), Any))
    if isinstance(hint, typing.NewType):
        return meant(hint.__supertype__)
    if type(alias).__name__ != "TypeAliasType":  # of Python 3.12, or of typing_extensions
        return hint
    types = _bound(alias.__type_params__, typing.get_args(hint))
    return meant(substituted(alias.__value__, types))


def _bound(parameters: tuple[Any, ...], args: tuple[Any, ...]) -> dict[Any, Any]:
    """Pair type variables with what they stand for, up to the first `*Ts` or `**P`."""
    single = itertools.takewhile(lambda each: isinstance(each, typing.TypeVar), parameters)
    return dict(zip(single, args, strict=False))


def substituted(hint: Any, types: Mapping[Any, Any]) -> Any:
    """Put annotations in the place of type variables.

    Examples:
        >>> from typing import TypeVar
        >>> T = TypeVar("T")
        >>> substituted(dict[str, list[T]], {T: int})
        dict[str, list[int]]
    """
    if isinstance(hint, typing.TypeVar):
        return types.get(hint, hint)
    parameters = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    if not any(parameter in types for parameter in parameters):
        return hint
    generic: Any = hint
    return generic[tuple(types[p] if p in types else _kept(p) for p in parameters)]


def _kept(parameter: Any) -> Any:
    """Return a type variable as an argument for itself."""
    several = isinstance(parameter, typing.TypeVarTuple)
    return typing.Unpack[parameter] if several else parameter


def type_arguments(cls: Any, args: tuple[Any, ...] = ()) -> dict[type, dict[Any, Any]]:
    """Collect what the type variables of a generic class and of its bases stand for.

    Args:
        cls: the class.
        args: the arguments in `cls[args]`.

    Returns:
        For each of these classes that has some, the annotations by type variable.
    """
    own = _bound(getattr(cls, "__parameters__", ()), args)
    found: dict[type, dict[Any, Any]] = {cls: own} if own else {}
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        kind = typing.get_origin(base) or base
        if isinstance(kind, type) and kind is not object:
            given = tuple(substituted(arg, own) for arg in typing.get_args(base))
            found = type_arguments(kind, given) | found
    return found


def of_field(cls: Any, name: str, hint: Any, args: tuple[Any, ...] = ()) -> Any:
    """Put annotations in the place of type variables in that of a field of `cls[args]`."""
    owners = [owner for owner in cls.__mro__ if name in _signatures.annotations_of(owner)]
    return substituted(hint, type_arguments(cls, args).get(owners[0], {})) if owners else hint


def of_method(
    cls: Any, function: Callable[..., Any], hints: dict[str, Any], args: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Put annotations in the place of type variables in those of a method of `cls[args]`."""
    types = type_arguments(cls, args)
    for owner in types:
        found = vars(owner).get(function.__name__)
        if found is not None and inspect.unwrap(found) is function:
            return {name: substituted(hint, types[owner]) for name, hint in hints.items()}
    return hints
