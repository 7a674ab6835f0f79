"""What is the gradient of a value that was written and is read again inside a native `jax.grad`?

A frame lies below the traces of a differentiation that started inside its call, so it holds primal
values only. The tangent of the last write is kept here, under the differentiation it belongs to,
and given back to a read in the same differentiation unless the variable was written again below.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from oryxstate import _jax
from oryxstate._effects import _frames


class _Tape(threading.local):
    def __init__(self) -> None:
        # Both are keyed by traces, weakly: what they hold refers to other traces only, so that it
        # dies with the differentiation, or with the jaxpr being staged, that it belongs to.
        self.kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self.counts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def count(self, trace: _jax.Trace, name: Any) -> int:
        """How often `name` was written at the trace where writes under `trace` land."""
        return self.counts.get(_landing(trace, name), {}).get(name, 0)


_tape = _Tape()


def through(
    primitive: Any,
    bind: Callable[..., Sequence],
    trace: _jax.Trace,
    args: Sequence,
    avals: Sequence,
    params: dict,
) -> Sequence:
    """Bind a state primitive at a trace that does not hold its variable."""
    if not _jax.differentiates(trace):
        return bind(trace, args, avals, params)
    if primitive.name == "variable":
        kept = _kept(trace, params["var"])
        return bind(trace, args, avals, params) if kept is None else kept
    out = bind(trace, args, avals, params)
    _keep(trace, params["var"], out)
    return out


def meaningful(trace: Any, name: Any) -> Any:
    """The first trace at or below `trace` that does more than watch: nested roots only watch."""
    while isinstance(trace, _jax.ForwardingTrace) and _frames.find(trace, name) is None:
        trace = _jax.parent(trace)
    return trace


def _landing(trace: Any, name: Any) -> Any:
    """The trace at which a write under `trace` is handled or staged."""
    trace = meaningful(trace, name)
    while _jax.wraps_parent(trace) and _frames.find(trace, name) is None:
        trace = meaningful(_jax.parent(trace), name)
    return trace


def landed(trace: _jax.Trace, name: Any) -> None:
    """Say that a write reached the trace at which it is evaluated or staged."""
    counts = _tape.counts.setdefault(trace, {})
    counts[name] = counts.get(name, 0) + 1


def _keep(trace: _jax.Trace, name: Any, out: Sequence) -> None:
    parts = [_jax.split_tangent(trace, x) or (x, None) for x in out]
    _tape.kept.setdefault(trace, {})[name] = _tape.count(trace, name), parts


def _kept(trace: _jax.Trace, name: Any) -> Sequence | None:
    for other, entries in _tape.kept.items():
        if _jax.same_differentiation(other, trace) and name in entries:
            count, parts = entries[name]
            if count == _tape.count(trace, name):
                return [x if t is None else _jax.join_tangent(trace, x, t) for x, t in parts]
    return None
