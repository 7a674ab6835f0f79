"""Attributes that modules read through their class: fields kept elsewhere, cached properties."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from oryxstate import _jax
from oryxstate._module import _foreign, _pytree
from oryxstate._module._pytree import AUX, PLACE, REST


def read(module: Any, name: str) -> Any:
    """Return a field that is not in the `__dict__`: state of a live module, a split child.

    Raises:
        AttributeError: for any other name.
    """
    d = module.__dict__
    place = d.get(PLACE)
    if place is not None and name in module.__layout__.state:
        return place.read(name)
    if name in d.get(REST, ()):
        data, rest = d[REST][name]
        return _foreign.join(data, rest, _pytree.is_module)
    raise AttributeError(f"{type(module).__name__!r} object has no attribute {name!r}")


def fields_first(written: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Return an author's `__getattr__`, which is not asked for fields."""

    @functools.wraps(written)
    def __getattr__(self: Any, name: str) -> Any:
        if name in self.__layout__.fields:
            return read(self, name)
        return written(self, name)

    return __getattr__


class FieldAttribute:
    """Stands on the class for a field that implements an abstract attribute of a base."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None:  # so that dataclasses take it for no default
            raise AttributeError(f"type object {owner.__name__!r} has no attribute {self.name!r}")
        return read(module, self.name)


class CachedProperty(functools.cached_property):
    """A `functools.cached_property` that is never stale.

    The value is kept by modules that are values, which never change, and outside of traces, whose
    tracers must not outlive them. Elsewhere it is computed at each read. `_pytree.with_data` drops
    it from changed copies.
    """

    def __init__(self, func: Any, name: str):
        super().__init__(func)
        self.attrname = name

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None or _is_kept(module.__dict__):
            return super().__get__(module, owner)
        value = self.func(module)
        module.__dict__.pop(self.attrname, None)  # kept by the property of a mixin, by `super()`
        return value

    def __reduce__(self) -> tuple:  # of a class by value; Python 3.11 adds a lock to `__dict__`
        return type(self), (self.func, self.attrname)


def _is_kept(d: dict[str, Any]) -> bool:
    return AUX in d and PLACE not in d and _jax.evaluates(_jax.current_trace())
