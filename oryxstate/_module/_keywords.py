"""Keywords of a root call, and how they reach the layers in it.

A layer declares them as keyword-only parameters of its `call`, such as `training` and `rng`. Those
that its caller leaves out come from the root call, however deep the layer stands. Static values
travel with the place of a live module, in the data that JAX compares, so that a cached trace of one
value is not used for another; arrays are variables of the root's frame, like state.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _example_keys, _tree
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import Name
from oryxstate._module import _pytree
from oryxstate._module._static import check_static, type_key

RNG = "rng"
"""The keyword of which every layer gets a key of its own."""


class Keywords(NamedTuple):
    """Keywords of a root call for the layers in it.

    Attributes:
        static: the static ones, as (name, value, what tells equal values apart).
        arrays: the names of the others, with the structure of their values.
    """

    static: tuple[tuple[str, Any, Any], ...] = ()
    arrays: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> set[str]:
        """All names."""
        return {name for name, *_ in (*self.static, *self.arrays)}


NONE = Keywords()


def taken_by(call: Callable[..., Any]) -> dict[str, bool]:
    """The keyword-only parameters of a `call`, and whether each must be given."""
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def split(
    function: Callable[..., Any], tree: Any, kwargs: dict, name: str | None = None
) -> tuple[dict, dict]:
    """The keywords that `function` takes itself, and those that are for the layers in `tree`.

    Args:
        function: what is called.
        tree: a module, or a pytree that holds modules.
        kwargs: the keywords.
        name: what is called, in words, if that is not the class of `tree`.

    Raises:
        TypeError: for a keyword that neither takes, naming those that they do.
    """
    if not kwargs:
        return {}, {}
    inside = taken_inside(tree)
    layer = getattr(tree, "__keywords__", {})  # which a layer gets like those inside it
    own = {k: v for k, v in kwargs.items() if k not in layer and accepts(function, k)}
    unknown = [k for k in kwargs if k not in own and k not in inside]
    if unknown:
        own_names = {n for n in _parameters(function) or () if accepts(function, n)} - {"self"}
        known = sorted(inside | own_names)
        raise TypeError(
            f"neither {name or type(tree).__name__} nor a layer in it takes a keyword "
            f"`{unknown[0]}`. "
            f"They take: {', '.join(known) or 'none'}."
        )
    return own, {k: v for k, v in kwargs.items() if k in inside}


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes a keyword of this name."""
    parameters = _parameters(function)
    if parameters is None:
        return True
    kinds = {p.kind for p in parameters.values()}
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter.VAR_KEYWORD in kinds or (
        name in parameters and parameters[name].kind in by_name
    )


def _parameters(function: Callable[..., Any]) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in, without a signature
        return None


def taken_inside(tree: Any) -> set[str]:
    """Collect the keywords that layers in a pytree take, at any depth."""
    return {name for _, module in _pytree.modules(tree) for name in module.__keywords__}


def hold(kwargs: dict, frame: _frames.Frame) -> Keywords:
    """Let a frame hold the keywords for the layers of its root call."""
    static, arrays = [], []
    for name, value in sorted(kwargs.items()):
        if name == RNG:
            _check_key(value)
        leaves, treedef = jax.tree.flatten(value)
        if leaves and all(map(_tree.is_array, leaves)):
            arrays.append((name, treedef))
            frame.add(_variable(frame.level, name), tuple(map(jnp.asarray, leaves)))
        else:
            check_static(value, f"keyword `{name}`")
            static.append((name, value, type_key(value)))
    return Keywords(tuple(static), tuple(arrays))


def _check_key(value: Any) -> None:
    if value is None:
        return
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed and shape == ()) and (dtype, shape) != (jnp.uint32, (2,)):
        raise TypeError(
            f"`{RNG}` must be a random key, as `jax.random.key(0)`, got {value!r}. Each layer gets "
            "one of its own from it."
        )


def _variable(level: int, name: str) -> Name:
    return Name(level, "", f"keyword {name}")  # no field has a name with a space


CALLS = "calls with rng"


def add_counter(module: Any, place: Any) -> None:
    """Count the calls of a layer that takes a key, if the root call has one."""
    if RNG in module.__keywords__ and RNG in place.keywords.names:
        count = Name(place.frame.level, place.path, CALLS)
        place.frame.add(count, (np.int32(0),), jax.tree.structure(0))


def completed(module: Any, args: tuple, kwargs: dict) -> dict:
    """The keywords that a layer is called with: those given to it, and those of the root call.

    Raises:
        TypeError: if one that it needs is given by neither, naming the layer and its path.
    """
    if not module.__keywords__:
        return kwargs
    place = module.__dict__.get(_pytree.PLACE)
    complete = dict(kwargs)
    for name, required in module.__keywords__.items():
        if name in kwargs:
            continue
        if place is not None and name in place.keywords.names:
            complete[name] = _value(place, name, lambda: (args, kwargs, _own_arrays(module, place)))
        elif required:
            raise TypeError(missing(module, place.path if place else "", name))
    return complete


def _own_arrays(module: Any, place: Any) -> list:
    """The arrays of a layer itself, but for state that its root call holds."""
    own, names = module.__dict__, set(module.__layout__.data) - set(module.__layout__.children)
    return [own[name] for name in sorted(names) if name in own] + list((place.refs or {}).values())


def missing(module: Any, path: str, name: str) -> str:
    """The text of the error for a keyword that a layer needs."""
    where = f" at '{path}'" if path else ""
    return (
        f"{type(module).__name__}{where} needs `{name}`. Give it where the model is called, "
        f"`model.call_and_update(x, {name}=...)`, from where it reaches every layer that takes it."
    )


def _value(place: Any, name: str, mapped: Callable[[], Any]) -> Any:
    """What a keyword of the root call is for the layer at a place."""
    for known, value, _ in place.keywords.static:
        if known == name:
            return value
    variable = _variable(place.frame.level, name)
    avals = place.frame.variables[variable].avals
    structure = dict(place.keywords.arrays)[name]
    value = jax.tree.unflatten(structure, _primitives.read(variable, avals))
    return _own_key(place, value, mapped()) if name == RNG else value


def _own_key(place: Any, key: Any, mapped: Any) -> Any:
    """The key of one call of one layer, and for each example of a `vmap`."""
    count = place.read(CALLS)
    place.write(CALLS, (count + np.int32(1),))
    for word in _words(place.path):
        key = jax.random.fold_in(key, word)
    return _example_keys.for_each_example(jax.random.fold_in(key, count), mapped)


@functools.cache
def _words(path: str) -> tuple[np.uint32, ...]:
    """64 bits of a path, so that no two layers of a model share a key."""
    digest = hashlib.sha256(f"oryxstate {path}".encode()).digest()
    return tuple(np.frombuffer(digest[:8], np.uint32))
