"""Tuples, lists and dicts of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from oryxstate import _api, _tree
from oryxstate._effects import _frames
from oryxstate._module import _pytree, _takes


def _rebuilt(like: tuple, items: Iterable[Any]) -> tuple:
    """Return a tuple of the same type, named or not."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def _nonempty(container: Any) -> None:
    if not container:
        kind = next(kind for kind in (tuple, list, dict) if isinstance(container, kind))
        raise ValueError(f"an empty {kind.__name__} is not a model: there is nothing to call")


def _for_each(members: Iterable[Any], kwargs: dict, *, all_get_others: bool) -> list[dict]:
    """Return the keywords of each member: those that it or a module in it takes, and a key.

    What no member takes is for all of them, or for the first, which says so.
    """
    if not kwargs:
        return [{} for _ in members]
    taken = [_taken(member) for member in members]
    others = {k: v for k, v in kwargs.items() if not any(k in names for names in taken)}
    given = []
    for i, names in enumerate(taken):
        own = {k: v for k, v in kwargs.items() if k in names}
        if own.get(_takes.RNG) is not None:
            own[_takes.RNG] = jax.random.fold_in(own[_takes.RNG], i)
        given.append({**own, **(others if all_get_others or i == 0 else {})})
    return given


def _taken(member: Any) -> set[str]:
    """Return the keywords that a member takes: a module, a function, or a container of them."""
    tree = member.__self__ if _api.is_method(member) else member
    functions = [member, *jax.tree.leaves(tree, is_leaf=_pytree.is_module)]
    own = (
        _takes.taken_by(f).keyword_only
        for f in functions
        if callable(f) and not _pytree.is_module(f)
    )
    return _takes.taken_inside(tree).union(*own) - {"init_key"}


def _call_member(key: Any, member: Any, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    with _frames.of_member(f"[{key!r}]"):
        return _api.call_and_update(member, *args, **kwargs)


def _initializers(members: dict[Any, Any], name: str | None, key: Any) -> dict[Any, Any]:
    """`init` of each member with a key of its own, and its name after that of the container."""
    keys = zip(members.items(), jax.random.split(key, len(members)), strict=True)
    return {
        i: (_api.init(m, name=None if name is None else f"{name}_{i}"), key) for (i, m), key in keys
    }


# The same arguments to each member: tuples and dicts ----------------------------------------------


def _fan_out(obj: Any) -> tuple[dict[Any, Any], Callable[[dict[Any, Any]], Any]]:
    """Return the members of a tuple or dict by key, and what makes another one of such."""
    _nonempty(obj)
    if isinstance(obj, dict):
        return obj, dict
    return dict(enumerate(obj)), lambda members: _rebuilt(obj, members.values())


@_api.init.register(tuple)
@_api.init.register(dict)
def _(obj: Any, *, name: str | None = None) -> Callable[..., Any]:
    members, rebuilt = _fan_out(obj)

    def initialize(key: Any, *args: Any, **kwargs: Any) -> Any:
        each = _initializers(members, name, key)
        return rebuilt({i: init(k, *args, **kwargs) for i, (init, k) in each.items()})

    return initialize


@_api.call_and_update.register(tuple)
@_api.call_and_update.register(dict)
def _(obj: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    members, rebuilt = _fan_out(obj)
    given = zip(
        members.items(), _for_each(members.values(), kwargs, all_get_others=True), strict=True
    )
    pairs = {i: _call_member(i, m, args, own) for (i, m), own in given}
    return tuple(rebuilt({i: pair[half] for i, pair in pairs.items()}) for half in (0, 1))  # type: ignore[return-value]


@_api.spec.register(tuple)
@_api.spec.register(dict)
def _(obj: Any) -> Callable[..., Any]:
    members, rebuilt = _fan_out(obj)

    def infer(*specs: Any, **kwargs: Any) -> Any:
        given = zip(
            members.items(), _for_each(members.values(), kwargs, all_get_others=True), strict=True
        )
        return rebuilt({i: _api.spec(m)(*specs, **own) for (i, m), own in given})

    return infer


# Each member on the output of the one before it: lists --------------------------------------------


def _handed_on(out: Any) -> tuple:
    """Return the arguments of the next member: those in a tuple, else one."""
    return out if type(out) is tuple else (out,)


@_api.init.register
def _(obj: list, *, name: str | None = None) -> Callable[..., Any]:
    _nonempty(obj)

    def initialize(key: Any, *args: Any, **kwargs: Any) -> list:
        made: list[Any] = []
        for i, (init, k) in _initializers(dict(enumerate(obj)), name, key).items():
            made.append(init(k, *args, **kwargs))
            if i + 1 < len(obj):
                args, kwargs = _handed_on(_call_at_init(made[-1], args, kwargs)), {}
        return type(obj)(made)

    return initialize


def _call_at_init(module: Any, args: tuple, kwargs: dict) -> Any:
    """Return what a member hands on to the next while a list is initialized: it is not training."""
    if any(map(_tree.is_spec, jax.tree.leaves(args))):
        return _api.spec(module)(*args, **kwargs)
    if "training" in _takes.taken_inside(module):
        kwargs = {"training": False, **kwargs}
    return _api.call(module, *args, **kwargs)


@_api.call_and_update.register
def _(obj: list, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    _nonempty(obj)
    news: list[Any] = []
    out: Any = None
    given = zip(obj, _for_each(obj, kwargs, all_get_others=False), strict=True)
    for i, (member, own) in enumerate(given):
        out, new = _call_member(i, member, args, own)
        news.append(new)
        args = _handed_on(out)
    return out, type(obj)(news)


@_api.spec.register
def _(obj: list) -> Callable[..., Any]:
    _nonempty(obj)

    def infer(*specs: Any, **kwargs: Any) -> Any:
        out: Any = None
        for member, own in zip(obj, _for_each(obj, kwargs, all_get_others=False), strict=True):
            out = _api.spec(member)(*specs, **own)
            specs = _handed_on(out)
        return out

    return infer
