"""What do tuples, lists and dicts of modules compute?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from oryxstate import _api
from oryxstate._module import _takes


def _rebuilt(like: tuple, items: list[Any]) -> tuple:
    """A tuple of the same type, named or not."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def _nonempty(container: Any, kind: str) -> None:
    if not container:
        raise ValueError(f"an empty {kind} is no model: there is nothing to call")


def _for_each(members: Iterable[Any], kwargs: dict, *, all_get_others: bool) -> list[dict]:
    """The keywords of each member: those that layers in it take, each with a key of its own.

    What no layer in any member takes is for all of them, or for the first.
    """
    if not kwargs:
        return [{} for _ in members]
    taken = [_takes.taken_inside(member) for member in members]
    others = {k: v for k, v in kwargs.items() if not any(k in names for names in taken)}
    given = []
    for i, names in enumerate(taken):
        own = {k: v for k, v in kwargs.items() if k in names}
        if own.get(_takes.RNG) is not None:
            own[_takes.RNG] = jax.random.fold_in(own[_takes.RNG], i)
        given.append({**own, **(others if all_get_others or i == 0 else {})})
    return given


def _member_name(name: str | None, key: Any) -> str | None:
    return None if name is None else f"{name}_{key}"


@_api.init.register
def _(obj: tuple, *, name: str | None = None) -> Callable[..., Any]:
    """The same arguments to each member, each with a key of its own."""
    _nonempty(obj, "tuple")

    def initialize(key: Any, *args: Any, **kwargs: Any) -> tuple:
        keys = jax.random.split(key, len(obj))
        members = enumerate(zip(obj, keys, strict=True))
        return _rebuilt(
            obj,
            [_api.init(m, name=_member_name(name, i))(k, *args, **kwargs) for i, (m, k) in members],
        )

    return initialize


@_api.call_and_update.register
def _(obj: tuple, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    _nonempty(obj, "tuple")
    given = zip(obj, _for_each(obj, kwargs, all_get_others=True), strict=True)
    outs, news = zip(*(_api.call_and_update(m, *args, **own) for m, own in given), strict=True)
    return _rebuilt(obj, list(outs)), _rebuilt(obj, list(news))


@_api.init.register
def _(obj: list, *, name: str | None = None) -> Callable[..., Any]:
    """Each member on the output of the one before it, each with a key of its own."""
    _nonempty(obj, "list")

    def initialize(key: Any, *args: Any, **kwargs: Any) -> list:
        made = []
        for i, (member, k) in enumerate(zip(obj, jax.random.split(key, len(obj)), strict=True)):
            made.append(_api.init(member, name=_member_name(name, i))(k, *args, **kwargs))
            if i + 1 < len(obj):
                args, kwargs = (_call_at_init(made[-1], args, kwargs),), {}
        return type(obj)(made)

    return initialize


def _call_at_init(module: Any, args: tuple, kwargs: dict) -> Any:
    """What a member hands on to the next while a list is initialized: it is not training."""
    if "training" in _takes.taken_inside(module):
        kwargs = {"training": False, **kwargs}
    return _api.call(module, *args, **kwargs)


@_api.call_and_update.register
def _(obj: list, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    _nonempty(obj, "list")
    news: list[Any] = []
    out = None
    for member, own in zip(obj, _for_each(obj, kwargs, all_get_others=False), strict=True):
        out, new = _api.call_and_update(member, *args, **own)
        news.append(new)
        args = (out,)
    return out, type(obj)(news)


@_api.init.register
def _(obj: dict, *, name: str | None = None) -> Callable[..., Any]:
    """The same arguments to each member, each with a key of its own."""
    _nonempty(obj, "dict")

    def initialize(key: Any, *args: Any, **kwargs: Any) -> dict:
        keys = dict(zip(obj, jax.random.split(key, len(obj)), strict=True))
        return {
            k: _api.init(m, name=_member_name(name, k))(keys[k], *args, **kwargs)
            for k, m in obj.items()
        }

    return initialize


@_api.call_and_update.register
def _(obj: dict, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    _nonempty(obj, "dict")
    given = zip(obj.items(), _for_each(obj.values(), kwargs, all_get_others=True), strict=True)
    pairs = {k: _api.call_and_update(m, *args, **own) for (k, m), own in given}
    return {k: out for k, (out, _) in pairs.items()}, {k: new for k, (_, new) in pairs.items()}
