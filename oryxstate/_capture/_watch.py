"""What captures have in common: each looks at every call of a module while it is open."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from oryxstate._capture._selected import Selected, nearest
from oryxstate._effects import _frames
from oryxstate._module import _hook, _live


class Watch:
    """One open capture or interception: what it does with each call of a module."""

    def __init__(self, selected: Selected):
        self.selected = selected
        self.seen: dict[str, None] = {}
        self.frame: Any = None
        self.level = 0

    @property
    def key(self) -> Any:
        """What JAX must trace anew for, hashable."""
        return type(self), self.selected

    @property
    def matched(self) -> bool:
        """Whether a selected module was met, if only in what JAX had traced before."""
        raise NotImplementedError

    def begins(self, path: str, module: Any, args: tuple) -> tuple:
        """Look at a call that begins, and return its arguments."""
        return args

    def called(self, path: str, module: Any, args: tuple, out: Any) -> Any:
        """Look at a call that has returned, and return what it returns."""
        self.seen[path] = None
        if not self.selected.holds(path, module):
            return out
        return self.meet(path, module, args, out)

    def meet(self, path: str, module: Any, args: tuple, out: Any) -> Any:
        """Do what is to be done with a selected call."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise if a selection named no module that was called."""
        if self.selected.parts and not self.matched and self.seen:
            raise ValueError(
                f"no module that was called is selected by {shown(self.selected)}. "
                + nearest(self.selected, list(self.seen))
            )


def shown(selected: Selected) -> str:
    return " or ".join(repr(part) for part in selected.parts)


class _State(threading.local):
    def __init__(self) -> None:
        self.path: str | None = None  # of the module that is running


_state = _State()
_context = jax.make_user_context(None)
_lock = threading.Lock()
_open = 0


def _around(run: Callable[..., Any], module: Any, *args: Any, **kwargs: Any) -> Any:
    watches = [frame.model for frame in _frames.captures()]
    if not watches:
        return run(module, *args, **kwargs)
    path = _live.full_path(module)
    if path == _state.path:  # `super().call(x)`, or a call of a changed copy
        return run(module, *args, **kwargs)
    for watch in watches:
        args = watch.begins(path, module, args)
    with _inside(path, (path, *(watch.key for watch in watches))):
        out = run(module, *args, **kwargs)
    for watch in reversed(watches):
        out = watch.called(path, module, args, out)
    return out


@contextlib.contextmanager
def _inside(path: str, key: Any) -> Iterator[None]:
    before, _state.path = _state.path, path
    try:
        with _context(key):
            yield
    finally:
        _state.path = before


@contextlib.contextmanager
def opened(watch: Watch) -> Iterator[None]:
    global _open
    with _lock:
        _open += 1
        _hook.surround(_around)
    try:
        with _frames.capturing() as frame:
            frame.model, watch.frame, watch.level = watch, frame, frame.level
            keys = tuple(frame.model.key for frame in _frames.captures())
            with _context(("", *keys)):
                yield
    finally:
        watch.frame = None
        with _lock:
            _open -= 1
            if not _open:
                _hook.surround()


def running() -> str:
    """Return the path of the module that is running."""
    return _state.path or ""


def check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(
            f"`ox.{name}` takes a module or a function that calls modules, got {function!r}."
        )
