"""What do tuples, lists and dicts of modules compute?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from oryxstate import _api


def _rebuilt(like: tuple, items: list[Any]) -> tuple:
    """A tuple of the same type, named or not."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def _nonempty(container: Any, kind: str) -> None:
    if not container:
        raise ValueError(f"an empty {kind} is no model: there is nothing to call")


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
    outs, news = zip(*(_api.call_and_update(m, *args, **kwargs) for m in obj), strict=True)
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
                args, kwargs = (_api.call(made[-1], *args, **kwargs),), {}
        return type(obj)(made)

    return initialize


@_api.call_and_update.register
def _(obj: list, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    _nonempty(obj, "list")
    news: list[Any] = []
    out = None
    for member in obj:
        out, new = _api.call_and_update(member, *args, **kwargs)
        news.append(new)
        args, kwargs = (out,), {}
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
    pairs = {k: _api.call_and_update(m, *args, **kwargs) for k, m in obj.items()}
    return {k: out for k, (out, _) in pairs.items()}, {k: new for k, (_, new) in pairs.items()}
