"""Rules that are asked before JAX binds a primitive, while a root call is open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from oryxstate import _jax


class _Replacement:
    """An attribute of an object of JAX for which ours stands in while a frame is open.

    Attributes:
        attributes: those of the object itself, where ours is put and taken away: not by `setattr`,
            which takes twice as long, since each eager root call pays for this.
        name: of the attribute.
        theirs: what the object itself has there, None if it comes from its class.
        ours: made by `wrap` from the original.
    """

    __slots__ = ("attributes", "name", "ours", "owner", "theirs", "wrap")

    def __init__(self, owner: Any, name: str, wrap: Callable[[Callable], Callable]):
        self.owner, self.name, self.wrap = owner, name, wrap
        self.attributes = vars(owner)
        self._read()

    def _read(self) -> None:
        self.theirs = self.attributes.get(self.name)
        self.ours = self.wrap(getattr(self.owner, self.name))

    def install_over_another(self) -> None:
        """Put ours in place where something unexpected is: ours, or that of another library."""
        if self.attributes.get(self.name) is not self.ours:
            self._read()
            self.attributes[self.name] = self.ours


_replacements: list[_Replacement] = []
_interception = threading.RLock()  # a finalizer or a signal handler may open a frame meanwhile
_threads = 0  # that have a frame open
_installed = False


def start_intercepting() -> None:
    """Ask the rules from now on, in all threads; once for each later `stop_intercepting`."""
    global _threads, _installed
    with _interception:
        _threads += 1
        if not _installed:
            for one in _replacements:
                if one.attributes.get(one.name) is one.theirs:
                    one.attributes[one.name] = one.ours
                else:
                    one.install_over_another()
            _installed = True


def stop_intercepting() -> None:
    """The inverse of `start_intercepting`; after the last one, JAX is as it was.

    What another library has put over ours meanwhile stays, and goes on calling ours.
    """
    global _threads, _installed
    with _interception:
        _threads -= 1
        if _threads == 0:
            _installed = False
            for one in _replacements:
                if one.attributes.get(one.name) is one.ours:
                    if one.theirs is None:
                        del one.attributes[one.name]
                    else:
                        one.attributes[one.name] = one.theirs


Rule = Callable[[_jax.Trace, Sequence, dict], Any]
INTERCEPTED: set[_jax.Primitive] = set()


def intercept(primitive: _jax.Primitive, rule: Rule) -> None:
    """While a frame is open, ask `rule(trace, args, params)` first whenever `primitive` is bound.

    If the rule returns None, JAX goes on. This change to objects of JAX is made at the only point
    where it can be right: before grad, vmap or jit transform the primitive. A rule that works below
    them would see loops whose tangents or batch axes no longer say where the state is. (JAX
    replaces `remat_p.bind` on the instance in the same way.)
    """

    def wrap(original):
        def bind_with_trace(trace, args, avals, params, /):
            out = rule(trace, args, params)
            return original(trace, args, avals, params) if out is None else out

        return bind_with_trace

    INTERCEPTED.add(primitive)
    _replacements.append(_Replacement(primitive, "bind_with_trace", wrap))


def intercept_eager_jit(touches_state: Callable[[Any], bool]) -> None:
    """While a frame is open, bind an eager call of a jitted function, as transformations do.

    With no trace set, `jax.jit` compiles what it staged without a `bind`. To set one during eager
    root calls would cost JAX's fast path for every small operation in them, five times their price.
    """

    def wrap(original):
        def call(*args, **params):
            if touches_state(params["jaxpr"]):
                return _jax.JIT.bind(*args, **params), None, None, []  # no executable to be kept
            return original(*args, **params)

        return call

    _replacements.append(_Replacement(*_jax.EAGER_JIT, wrap))


# What is replaced ---------------------------------------------------------------------------------


def replaced() -> dict[str, Any]:
    """Return what stands now at each name that a root call replaces, `scan.bind_with_trace` say."""
    return {f"{_name(one.owner)}.{one.name}": getattr(one.owner, one.name) for one in _replacements}


def _name(owner: Any) -> str:
    return owner.name if isinstance(owner, _jax.Primitive) else owner.__name__
