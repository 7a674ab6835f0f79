"""Derivation of `call` and `call_and_update` from the one that an author wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import Name
from oryxstate._errors import EffectError
from oryxstate._module import _call, _hook, _keywords, _live, _pytree, _takes
from oryxstate._module._classes import written

WRITTEN = ("call", "__call__", "call_and_update")


def derive_calls(cls: Any, root: type) -> None:
    """Set what the author of a module class did not write of `WRITTEN`, and `update`.

    All four are those of this class, so that `super()` finds in each class what that class says.

    Args:
        cls: the class.
        root: `Module`, whose own functions stand for what is not written.

    Raises:
        TypeError: for two functions that could disagree, naming them.
    """
    outside = [base for base in cls.__mro__ if base is cls or "__layout__" not in vars(base)]
    for base in outside:
        if "update" in vars(base):
            raise TypeError(_own_update(cls, base))
    own = written(cls, WRITTEN, root)
    if own is None:
        return
    name, function = _the_only(*own)
    _check_batched(cls, own[0], name)
    derived = _derived_from_rule if name == "call_and_update" else _derived_from_call
    cls.call, cls.call_and_update = call, call_and_update = derived(function)

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the output; keywords that `call` needs may come from the root."""
        return call(self, *args, **kwargs)

    def update(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Return this module with the state that the call left."""
        return call_and_update(self, *args, **kwargs)[1]

    cls.__call__, cls.update = __call__, update
    if "__keywords__" not in vars(cls):
        cls.__keywords__ = _keywords_of(cls, function)


def _keywords_of(cls: Any, function: Callable[..., Any]) -> dict[str, bool]:
    """Return the keywords that a call takes, and those that the call of a base takes."""
    bases = [vars(base).get("__keywords__") for base in reversed(cls.__mro__)]
    names = [name for base in bases if isinstance(base, dict) for name in base]
    return {**dict.fromkeys(names, False), **_takes.taken_by(function).keyword_only}


def _check_batched(cls: type, owner: type, name: str) -> None:
    """Raise if a class writes a call anew whose batched rule is that of a base."""
    rule = next(base for base in cls.__mro__ if "call_batched" in vars(base))
    inherited = rule is not owner and issubclass(owner, rule)
    if inherited and vars(rule)["call_batched"] is not None:
        raise TypeError(
            f"{owner.__name__} defines `{name}`, but inherits `call_batched` of {rule.__name__}, "
            "which would run in its place under `jax.vmap`. Define both, or set `call_batched = "
            "None` for a call that sees one example at a time."
        )


def _the_only(owner: type, functions: dict[str, Any]) -> tuple[str, Any]:
    if len(set(map(id, functions.values()))) > 1:
        names = " and ".join(f"`{name}`" for name in functions)
        raise TypeError(
            f"{owner.__name__} defines both {names}: one is derived from the other. Write one of "
            "them."
        )
    return next(iter(functions.items()))


def _own_update(cls: type, base: type) -> str:
    return (
        f"{base.__name__} defines `update`, which {cls.__name__} derives from its call, so that "
        "`module.update(x)` and `ox.update(module, x)` are the same. Call the method differently, "
        "or write `call_and_update` instead of the two."
    )


def _derived_from_call(written: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    taken = _takes.taken_by(written)

    @functools.wraps(written)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        live = _live.resolve(self)
        if live is None and not (_frames.within_call() or _live.is_stray(self)):
            return call_and_update(self, *args, **kwargs)[0]
        if kwargs:
            module = self if live is None else live
            return _call.with_keywords(partial(_hook.around, run), taken, module, args, kwargs)
        return _hook.around(run, self if live is None else live, *args)

    def run(module: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            complete = _keywords.completed(module, taken, args, kwargs)
            if type(module).call_batched is not None and _live.is_live(module):
                return _hook.run_batched(written, module, args, complete)
            with _live.scope(module):
                return _hook.run(written, module, *args, **complete)
        except Exception as error:
            _call.locate(error, module, written, args)
            raise

    def call_and_update(self: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Return the output, and this module with the state that the call left."""
        return _call.root(partial(_hook.around, run), self, args, kwargs, taken=taken)

    return call, call_and_update


def _derived_from_rule(written: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    taken = _takes.taken_by(written)

    @functools.wraps(written)
    def call_and_update(self: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return _call.root_of_rule(written, self, args, kwargs)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the output of `call_and_update`."""
        live = _live.resolve(self)
        if live is not None:
            if kwargs:
                return _call.with_keywords(compose, taken, live, args, kwargs)
            return compose(live, *args)
        if (_frames.within_call() or _live.is_stray(self)) and _pytree.has_state(self):
            raise EffectError(not_in_root(self, self.__layout__.state))
        return _call.root_of_rule(written, self, args, kwargs, _live.known_path(self))[0]

    def compose(live: Any, *args: Any, **kwargs: Any) -> Any:
        return _call.compose(written, live, args, kwargs)

    return call, call_and_update


def not_in_root(module: Any, fields: Iterable[str]) -> str:
    """Return the text of the error for state that is not part of a root call."""
    kind, fields = type(module).__name__, list(fields)
    scope = _pytree.scope_of(module)
    if scope is not None:
        name = Name(scope.level, scope.path, fields[0] if fields else kind)
        return _primitives.ENDED.format(name=name)
    names = ", ".join(f"`{name}`" for name in fields)
    if _frames.within_call():
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


def nothing_written(module: Any, name: str) -> str:
    """Return the error text for a class without a call, also if it asks `super()` for one."""
    kind = type(module).__name__
    if type(module).__call__.__module__ == __name__:  # it is derived
        return (
            f"no base of {kind} defines `{name}`, which it asks `super()` for. A base that is a "
            "module has all of `call`, `__call__`, `call_and_update` and `update`; a plain mixin "
            "has what it defines."
        )
    return (
        f"{kind} defines neither `call` nor `call_and_update`. Write `def call(self, x): ...` and "
        "`self.assign(field=value)` in it, or `def call_and_update(self, x): ...` that returns "
        "`y, self.replace(field=value)`."
    )
