"""What a function has while it runs: its modules, and no key once it is initialized."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Callable
from typing import Any

import jax

from oryxstate import _jax
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import KEY_AXIS
from oryxstate._module import _keywords, _live


class Modules:
    """The modules among the variables of a running function: live, as in a root call of theirs."""

    def __init__(self, frame: _frames.Frame, modules: dict[str, Any], keywords: dict[str, Any]):
        self._frame = frame
        self._keywords = _keywords.hold(keywords, frame)
        self._made: collections.Counter[str] = collections.Counter()
        self.first: dict[str, Any] = {}
        self._live: dict[str, Any] = {}
        for name, module in modules.items():
            self._enter(name, module)

    def _enter(self, name: str, module: Any) -> Any:
        self.first[name] = module
        self._live[name] = _live.enter(module, self._frame, name, self._keywords)
        return self._live[name]

    def fresh_name(self, kind: str) -> str:
        """A name for a module without one: that of its class, numbered from the second on."""
        self._made[kind] += 1
        count = self._made[kind] - 1
        return f"{kind}_{count}" if count else kind

    def variable(self, name: str, module: Any) -> Any:
        """Declare a module, or find it."""
        if not self._frame.declaring:
            return self.find(name)
        if name in self.first or name in self._frame.declared:
            raise ValueError(
                f"two variables are named {name!r} in one function. Give one of them another name."
            )
        return self._enter(name, module)

    def find(self, name: str) -> Any:
        """The live module of this name."""
        if name not in self._live:
            known = ", ".join(self._live) or "none"
            raise ValueError(
                f"module {name!r} was not declared when the function was initialized (declared: "
                f"{known}). Initialize it again with inputs for which it declares this module."
            )
        return self._live[name]

    def updated(self) -> dict[str, Any]:
        """The modules as the function left them."""
        return {name: _live.updated_model(m, self._frame, name) for name, m in self.first.items()}

    def detach(self, out: Any) -> Any:
        """An output without ties to this run."""
        return _live.detach(out, self._frame)


def run(function: Callable[..., Any], key: Any, args: tuple, kwargs: dict) -> Any:
    """Run a function that is being initialized, with the key if it takes one."""
    if _takes_key(function) and "init_key" not in kwargs:
        kwargs = {**kwargs, "init_key": key}
    return function(*args, **kwargs)


def run_again(function: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """Run a function that is initialized: nothing may depend on its `init_key` any more.

    The key is mapped, over one example, so that what depends on it is known by being mapped.
    """
    if not _takes_key(function) or "init_key" in kwargs:
        return function(*args, **kwargs)
    out: Any = None

    def body(init_key: Any) -> tuple:
        nonlocal out
        out = function(*args, init_key=init_key, **kwargs)
        if any(map(_jax.is_mapped, jax.tree.leaves(out))):
            raise ValueError(_primitives.KEY_USED)
        return ()

    jax.vmap(body, axis_name=KEY_AXIS)(jax.random.key(0)[None])
    return out


def _takes_key(function: Callable[..., Any]) -> bool:
    try:
        return "init_key" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in, without a signature
        return False
