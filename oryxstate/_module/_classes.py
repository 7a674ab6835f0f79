"""Module classes: their dataclass, their layout, and their names, which must not meet."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from oryxstate import _signatures
from oryxstate._module._attributes import CachedProperty, FieldAttribute, fields_first
from oryxstate._module._fields import Layout

OPTIONS = set(inspect.signature(dataclasses.dataclass).parameters) - {"cls", "kw_only"}
LIBRARY = __name__.partition(".")[0]


def make(cls: Any, root: Any, *, kw_only: bool = False) -> None:
    """Make a dataclass of a module class, and set what the library keeps on it.

    Args:
        cls: the class.
        root: `Module`, whose own functions an author's replace.
        kw_only: as for dataclasses.

    Raises:
        TypeError: if a field and another attribute have one name.
    """
    parents = [base for base in cls.__mro__[1:] if hasattr(base, "__generated_init__")]
    inherited = parents[0].__generated_init__ if parents else True
    cls.__generated_init__ = inherited and "__init__" not in cls.__dict__
    for name in _signatures.annotations_of(cls):  # or dataclasses would take it for a default
        if name not in cls.__dict__ and _is_abstract(getattr(cls, name, None)):
            setattr(cls, name, FieldAttribute(name))
    dataclasses.dataclass(eq=False, repr=False, init=cls.__generated_init__, kw_only=kw_only)(cls)
    cls.__layout__ = Layout.of(cls)
    for name in cls.__layout__.fields:
        _check_name(cls, name)
    _set_attributes(cls, root)


def _set_attributes(cls: Any, root: Any) -> None:
    for name in cls.__layout__.data:  # a default left on the class would hide `__getattr__`
        if name in cls.__dict__ and not isinstance(cls.__dict__[name], FieldAttribute):
            delattr(cls, name)
    attributes = {k: v for base in reversed(cls.__mro__) for k, v in vars(base).items()}
    for name, value in attributes.items():
        if type(value) is functools.cached_property:
            setattr(cls, name, CachedProperty(value.func, name))
        elif name in cls.__layout__.fields and _is_abstract(value):
            setattr(cls, name, FieldAttribute(name))
    own = written(cls, ("__getattr__",), root)
    if own is not None:
        cls.__getattr__ = fields_first(own[1]["__getattr__"])


def written(cls: type, names: tuple[str, ...], root: type) -> tuple[type, dict[str, Any]] | None:
    """Return what an author wrote of these names for a class: in it, or in a mixin before `root`.

    Returns:
        The class with the attributes, and these by name; None if `cls` inherits them from a module.
    """
    for base in cls.__mro__:
        own = {name: vars(base)[name] for name in names if name in vars(base)}
        if base is not root and not all(map(_is_abstract, own.values())):
            return (base, own) if base is cls or "__layout__" not in vars(base) else None
    return None


def check_options(cls: type, options: dict[str, Any]) -> None:
    """Refuse the options of dataclasses that modules do not have.

    Raises:
        TypeError: naming the class and the option.
    """
    for name in sorted(OPTIONS & set(options)):
        raise TypeError(
            f"class {cls.__name__} got the option `{name}={options[name]!r}`: every module is a "
            "frozen dataclass, compared by identity. The only option is `kw_only`."
        )


def _is_abstract(attribute: Any) -> bool:
    return getattr(attribute, "__isabstractmethod__", False)


def _check_name(cls: type, name: str) -> None:
    if name.startswith("__"):
        raise TypeError(
            f"field `{name}` of {cls.__name__}: names that begin with two underscores belong to "
            "Python and the library. Call it differently."
        )
    if name == "name" and cls.__layout__.infos[name].kind != "static":
        raise TypeError(
            f"field `name` of {cls.__name__}: every module has a static field `name`, under which "
            "`variables()` of its parent lists it. Call yours differently, such as `label`."
        )
    declaring = next(base for base in cls.__mro__ if name in _own_fields(base))
    below = cls.__mro__.index(declaring)
    for i, owner in enumerate(cls.__mro__):
        attribute = vars(owner).get(name)
        if name not in vars(owner) or name in _own_fields(owner):
            continue
        if isinstance(attribute, FieldAttribute) or _gives_way(attribute, owner, i, below):
            continue
        raise TypeError(
            f"field `{name}` of {declaring.__name__} and the {_kind(attribute)} "
            f"`{owner.__name__}.{name}` have the same name, so one would hide the other. "
            + _remedy(name, attribute)
        )


def _own_fields(base: type) -> set[str]:
    if "__dataclass_fields__" not in vars(base):
        return set()
    fields: Any = base
    return {f.name for f in dataclasses.fields(fields)} & set(_signatures.annotations_of(base))


def _gives_way(attribute: Any, owner: type, position: int, field: int) -> bool:
    """Tell whether a field is meant to replace an attribute, which is abstract or a constant."""
    if _is_abstract(attribute):
        return position > 0
    constant = not hasattr(attribute, "__get__") and owner.__module__.partition(".")[0] != LIBRARY
    return constant and position > field


def _kind(attribute: Any) -> str:
    if isinstance(attribute, property | functools.cached_property):
        return "property"
    return "method" if callable(attribute) or hasattr(attribute, "__func__") else "attribute"


def _remedy(name: str, attribute: Any) -> str:
    if hasattr(attribute, "__get__"):
        return "Call one of them differently."
    return f"To give the field another default, declare it again: `{name}: ... = {attribute!r}`."
