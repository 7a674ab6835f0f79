"""Derivation of `call` and `call_and_update` from the one that an author wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import Name
from oryxstate._errors import EffectError
from oryxstate._module import _call, _hook, _keywords, _live, _pytree


def derive_calls(cls: Any) -> None:
    """Set `call` and `call_and_update` of a module class."""
    own = [name for name in ("call", "call_and_update") if name in cls.__dict__]
    if len(own) == 2:
        raise TypeError(
            f"{cls.__name__} defines both `call` and `call_and_update`: one is derived from the "
            "other. Write one of them."
        )
    if not own or getattr(cls.__dict__[own[0]], "__isabstractmethod__", False):
        return
    written = cls.__dict__[own[0]]
    if own == ["call"]:
        cls.call = _derived_from_call(written)
        cls.call_and_update = _root_call
    else:
        cls.call, cls.call_and_update = _derived_from_rule(written)


def _derived_from_call(written: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(written)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        live = _live.resolve(self)
        if live is not None:
            return run(live, args, _keywords.completed(live, args, kwargs))
        if _frames.any_open() or _live.is_stray(self):
            complete = _keywords.completed(self, args, kwargs)
            return _hook.run(written, self, *args, **complete)
        return _call.root(call, self, args, kwargs)[0]

    def run(live: Any, args: tuple, kwargs: dict) -> Any:
        if type(live).call_batched is not None:
            return _hook.run_batched(written, live, args, kwargs)
        return _hook.run(written, live, *args, **kwargs)

    return call


def _root_call(self: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The output, and this module with the state that the call left."""
    return _call.root(type(self).call, self, args, kwargs)


def _derived_from_rule(written: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    @functools.wraps(written)
    def call_and_update(self: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return _call.root_of_rule(written, self, args, kwargs)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The output of `call_and_update`."""
        live = _live.resolve(self)
        if live is not None:
            return _call.compose(written, live, args, _keywords.completed(live, args, kwargs))
        if (_frames.any_open() or _live.is_stray(self)) and _pytree.has_state(self):
            raise EffectError(not_in_root(self, self.__layout__.state))
        return _call.root_of_rule(written, self, args, kwargs)[0]

    return call, call_and_update


def not_in_root(module: Any, fields: Iterable[str]) -> str:
    """The text of the error for state that is not part of a root call."""
    kind, fields = type(module).__name__, list(fields)
    scope = _pytree.scope_of(module)
    if scope is not None:
        name = Name(scope.level, scope.path, fields[0] if fields else kind)
        return _primitives.ENDED.format(name=name)
    names = ", ".join(f"`{name}`" for name in fields)
    if _frames.any_open():
        return (
            f"{kind} writes {names}, but it is not part of the model that is being called, so the "
            "update would be lost. Make it a field of the model, or call it explicitly, "
            "`y, module = module.call_and_update(x)`, and return the new module."
        )
    return (
        f"{kind} writes {names} outside a root call, where no model takes the update. Call the "
        "module, `y, module = module.call_and_update(x)`, or make a changed copy, "
        f"`module.replace({fields[0] if fields else 'field'}=...)`."
    )


def nothing_written(module: Any) -> str:
    """The text of the error for a class that defines no call."""
    kind = type(module).__name__
    return (
        f"{kind} defines neither `call` nor `call_and_update`. Write `def call(self, x): ...` and "
        "`self.assign(field=value)` in it, or `def call_and_update(self, x): ...` that returns "
        "`y, self.replace(field=value)`."
    )
