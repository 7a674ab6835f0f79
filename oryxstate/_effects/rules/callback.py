"""Host callbacks, which belong to no root call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from oryxstate import _jax
from oryxstate._effects import _frames


@dataclasses.dataclass(frozen=True)
class _OnHost:
    """A callback that runs with no root call open, whichever is where JAX calls it from."""

    callback: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        with _frames.isolated():
            return self.callback(*args)


def rule_of(primitive):
    """Return the rule of one of JAX's callbacks: hide all root calls from what runs on the host."""

    def rule(trace, args, params):
        callback = params["callback"]
        if isinstance(callback, _OnHost) or not _frames.active():
            return None
        return _jax.bind_at(primitive, trace, args, {**params, "callback": _OnHost(callback)})

    return rule
