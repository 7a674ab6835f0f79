"""Keywords of a call, and how they reach the modules below it.

A module declares them as keyword-only parameters of its `call`, such as `training` and `rng`. Those
that its caller leaves out come from the calls around, the innermost first, and at last from the
root. Static values travel with the place of a live module, in the data that JAX compares, so that a
cached trace of one value is not used for another. Arrays are variables: those of the root call are
held by its frame, and those of a call inside by a frame that is open for that long.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _example_keys, _tree
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import Name
from oryxstate._module import _pytree
from oryxstate._module._static import check_static, type_key
from oryxstate._module._takes import RNG, Taken


class Array(NamedTuple):
    """A keyword whose value is an array, or a pytree of arrays.

    Attributes:
        name: of the keyword.
        variable: which holds its leaves.
        avals: their types.
        treedef: its structure.
    """

    name: str
    variable: Name
    avals: tuple
    treedef: Any


class Keywords(NamedTuple):
    """The keywords that reach a module.

    Attributes:
        static: the static ones, as (name, value, what tells equal values apart).
        arrays: the others.
    """

    static: tuple[tuple[str, Any, Any], ...] = ()
    arrays: tuple[Array, ...] = ()

    @property
    def names(self) -> set[str]:
        """All names."""
        return {name for name, *_ in (*self.static, *self.arrays)}

    def over(self, outer: Keywords) -> Keywords:
        """Return these with those of an outer call that are not among them."""
        names = self.names
        return Keywords(
            self.static + tuple(k for k in outer.static if k[0] not in names),
            self.arrays + tuple(k for k in outer.arrays if k.name not in names),
        )


NONE = Keywords()
Values = dict[Name, tuple]


def make(kwargs: dict, level: int, path: str) -> tuple[Keywords, Values]:
    """Make the keywords of a call, and the values of the variables among them.

    Args:
        kwargs: the keywords.
        level: of the root call.
        path: of the called module in it.
    """
    static, arrays, values = [], [], {}
    for name, value in sorted(kwargs.items()):
        if name == RNG:
            _check_key(value)
        leaves, treedef = jax.tree.flatten(value)
        if leaves and all(map(_tree.is_array, leaves)):
            variable = Name(level, path, f"keyword {name}")  # no field has a name with a space
            values[variable] = held = tuple(map(jnp.asarray, leaves))
            arrays.append(Array(name, variable, _frames.avals_of(held), treedef))
        else:
            check_static(value, f"keyword `{name}`")
            static.append((name, value, type_key(value)))
    return Keywords(tuple(static), tuple(arrays)), values


def hold(kwargs: dict, frame: _frames.Frame) -> Keywords:
    """Let a frame hold the keywords of its root call."""
    if not kwargs:
        return NONE
    keywords, values = make(kwargs, frame.level, "")
    for name, leaves in values.items():
        frame.add(name, leaves)
    return keywords


def _check_key(value: Any) -> None:
    if value is None:
        return
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed and shape == ()) and (dtype, shape) != (jnp.uint32, (2,)):
        raise TypeError(
            f"`{RNG}` must be a random key, as `jax.random.key(0)`, got {value!r}. Each module "
            "gets one of its own from it."
        )


CALLS = "calls with rng"


def add_counter(module: Any, place: Any) -> None:
    """Count the calls of a module that may take a key."""
    if RNG in module.__keywords__:
        _count_calls(place)


def _count_calls(place: Any) -> None:
    """Begin to count the calls of the module at a place, unless they are counted."""
    count = Name(place.frame.level, place.path, CALLS)
    if count not in place.frame.declared:
        place.frame.add(count, (np.int32(0),), jax.tree.structure(0))


def names(module: Any, taken: Taken) -> dict[str, bool]:
    """Return the keywords that a function of a module gets from calls around, and needs."""
    return module.__keywords__ if taken.is_open else taken.keyword_only


def completed(module: Any, taken: Taken, args: tuple, kwargs: dict) -> dict:
    """Return the keywords of a call of a module: those given to it, and those of calls around.

    Args:
        module: the module.
        taken: what its function takes.
        args: the arguments of the call.
        kwargs: the keywords given to it.

    Raises:
        TypeError: if one that it needs is given by none, naming the module and its path.
    """
    needed = names(module, taken)
    if not needed:
        return kwargs
    place = module.__dict__.get(_pytree.PLACE)
    given = () if place is None else place.keywords.names
    complete = dict(kwargs)
    for name, required in needed.items():
        if name in kwargs:
            continue
        if name in given:
            complete[name] = _value(place, name, lambda: (args, kwargs, _own_arrays(module, place)))
        elif required:
            raise TypeError(missing(module, place.path if place else "", name))
    return complete


def _own_arrays(module: Any, place: Any) -> list:
    """Return the arrays of a module itself, but for state that its root call holds."""
    own, names = module.__dict__, set(module.__layout__.data) - set(module.__layout__.children)
    return [own[name] for name in sorted(names) if name in own] + list((place.refs or {}).values())


def missing(module: Any, path: str, name: str) -> str:
    """Return the text of the error for a keyword that a module needs."""
    where = f" at '{path}'" if path else ""
    return (
        f"{type(module).__name__}{where} needs `{name}`. Give it where the model is called, "
        f"`model.call_and_update(x, {name}=...)`, from where it reaches every module that takes it."
    )


def _value(place: Any, name: str, mapped: Callable[[], Any]) -> Any:
    """Return the value of a keyword for the module at a place."""
    value = _given(place, name)
    if name != RNG or value is None:
        return value
    return _example_keys.for_each_example(_key_of_call(place, value), mapped())


def _given(place: Any, name: str) -> Any:
    """Return the value of a keyword as it was given above the place."""
    for known, value, _ in place.keywords.static:
        if known == name:
            return value
    (array,) = [array for array in place.keywords.arrays if array.name == name]
    return jax.tree.unflatten(array.treedef, _primitives.read(array.variable, array.avals))


def handed_down(place: Any, wanted: Collection[str]) -> tuple[dict, dict]:
    """Return the keywords that reach a place, for a root call of what stands below it.

    Its modules get keys of their own from one that belongs to this call.

    Returns:
        `(static, arrays)`.
    """
    static = {name: value for name, value, _ in place.keywords.static if name in wanted}
    names = [array.name for array in place.keywords.arrays if array.name in wanted]
    arrays = {name: _given(place, name) for name in names}
    if RNG in arrays:
        arrays[RNG] = _key_of_call(place, arrays[RNG])
    return static, arrays


def _key_of_call(place: Any, key: Any) -> Any:
    """Return the key of one call of one module."""
    _count_calls(place)  # a method that is the root call may take a key where the call does not
    count = place.read(CALLS)
    place.write(CALLS, (count + np.int32(1),))
    for word in _words(place.path):
        key = jax.random.fold_in(key, word)
    return jax.random.fold_in(key, count)


@functools.cache
def _words(path: str) -> tuple[np.uint32, ...]:
    """64 bits of a path, so that no two modules of a model share a key."""
    digest = hashlib.sha256(f"oryxstate {path}".encode()).digest()
    return tuple(np.frombuffer(digest[:8], np.uint32))
