"""Static field values: equality, validation and pickling."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np


def type_key(value: Any) -> Any:
    """Return what tells values apart that `==` does not: `2`, `2.0` and `True`, `0.0` and `-0.0`.

    JAX compares static values by `==` alone and would reuse the trace of one for the other.
    """
    if isinstance(value, tuple):
        return (type(value), *map(type_key, value))
    if isinstance(value, frozenset):
        return (type(value), frozenset((v, type_key(v)) for v in value))
    if isinstance(value, float | complex):
        return (type(value), repr(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return (type(value), *(type_key(getattr(value, f.name)) for f in fields if f.compare))
    return type(value)


def check_static(value: Any, where: str) -> None:
    """Refuse what must not be static.

    Raises:
        TypeError: for an array, something unhashable, or a function that hides arrays.
    """
    if any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value)):
        raise TypeError(
            f"{where} is static but holds an array. JAX would neither trace nor update it. Declare "
            "the field `ox.param()` or `ox.state()`, or give it a hashable value (a tuple)."
        )
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"{where} is static and must be hashable, but {type(value).__name__} is not "
            f"({error}). Use a tuple or a frozen dataclass, or convert it: "
            "`ox.static(converter=tuple)`."
        ) from None
    check_function(value, where)


def check_function(value: Any, where: str) -> None:
    """Refuse a JAX-transformed function that holds arrays, which JAX would not see.

    Raises:
        TypeError: if `value` is one.
    """
    if _is_transformed(value) and any(map(_has_array, _held(value))):
        raise TypeError(
            f"{where} is a transformed function (`jax.jit`, `jax.vmap`, ...) that holds arrays, "
            "which would be constants of it for ever: neither trained nor updated. Store what it "
            "wraps in a field, and transform inside `call`: `jax.jit(self.f)(x)`."
        )


class Partial(functools.partial):
    """A `functools.partial` that is compared by what it holds.

    Python compares partials by identity, so a model would change its structure in a pickle. One
    that holds something unhashable is compared by identity still.
    """

    def _key(self) -> Any:
        named = tuple(sorted(self.keywords.items()))
        key = self.func, self.args, named, type_key((self.args, named))
        try:
            hash(key)
        except TypeError:
            return id(self)
        return key

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Partial):
            return NotImplemented
        return self is other or self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> Any:
        named, attributes = tuple(self.keywords.items()), tuple(vars(self).items())
        return _partial, tuple(map(by_name, (self.func, self.args, named, attributes)))


def _partial(*parts: Any) -> Partial:
    func, args, named, attributes = map(found, parts)
    partial = Partial(func, *args, **dict(named))
    vars(partial).update(attributes)
    return partial


def by_value(value: Any) -> Any:
    """Return a static value as it is kept: partials in it are compared by what they hold."""
    if type(value) is tuple:
        return tuple(map(by_value, value))
    if type(value) is not functools.partial:
        return value
    named = {key: by_value(v) for key, v in value.keywords.items()}
    partial = Partial(value.func, *by_value(value.args), **named)
    vars(partial).update(vars(value))
    return partial


class ByName(NamedTuple):
    """Stands for a function in a pickle."""

    module: str
    name: str


def by_name(value: Any) -> Any:
    """Return a function in the form in which it can be pickled.

    Python pickles what `jax.jit` and `jax.custom_jvp` return (`jax.nn.relu`, `jnp.tanh`) by what
    they wrap, which is not found under its name any more; they themselves are.
    """
    if type(value) is tuple:
        return tuple(map(by_name, value))
    if not callable(value) or inspect.isfunction(value) or inspect.isclass(value):
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    named = ByName(str(module), str(name))
    return named if _lookup(named) is value else value


def found(value: Any) -> Any:
    """Invert `by_name`."""
    if isinstance(value, ByName):
        return _lookup(value)
    return tuple(map(found, value)) if type(value) is tuple else value


def _lookup(named: ByName) -> Any:
    try:
        owner = importlib.import_module(named.module)
        return functools.reduce(getattr, named.name.split("."), owner)
    except (ImportError, AttributeError):
        return None


def _is_transformed(value: Any) -> bool:
    while isinstance(value, functools.partial):
        value = value.func
    return callable(value) and hasattr(value, "__wrapped__")


def _has_array(value: Any) -> bool:
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value))


def _held(function: Any) -> Iterator[Any]:
    """Yield the values that a function holds: of its closure, its partial, its bound object."""
    seen: set[int] = set()
    todo = [function]
    while todo:
        f = todo.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        if isinstance(f, functools.partial):
            todo.append(f.func)
            todo.extend([*f.args, *f.keywords.values()])
        elif inspect.ismethod(f):
            todo.append(f.__func__)
            yield f.__self__
        elif callable(f) and (hasattr(f, "__wrapped__") or inspect.isfunction(f)):
            todo.append(getattr(f, "__wrapped__", None))
            todo.extend(_closure(f))
        elif f is not None:
            yield f


def _closure(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is still empty
            continue
