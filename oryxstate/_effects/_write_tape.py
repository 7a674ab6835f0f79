"""What a transformation inside a call saw written, kept for when it is read again.

A frame lies below the traces of a `grad` or `vmap` that started inside its call, so it holds primal
values, and of what the examples of a `vmap` wrote only the reduction. The rest of the last write,
its tangent or each example's own value, is kept here under the transformation that it belongs to,
and given back to a read in the same transformation unless the variable was written again below.
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
        # Keyed weakly, by traces and by frames or traces: what they hold refers to other traces
        # only, so that it dies with the transformation, or with the jaxpr being staged, that it
        # belongs to.
        self.kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self.counts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def count(self, trace: _jax.Trace, name: Any) -> int:
        """How often `name` was written where writes under `trace` land."""
        return self.counts.get(_landing(trace, name), {}).get(name, 0)


_tape = _Tape()


def through(
    bind: Callable[[], Sequence], below: Callable[[], Sequence], trace: _jax.Trace, name: Any
) -> Sequence:
    """Read at the trace of a transformation that does not hold the variable.

    Args:
        bind: reads by the rule of the transformation, as if nothing had been written in it.
        below: reads at the parent of the trace.
        trace: the trace.
        name: the variable.
    """
    count, parts = _tape.kept.get(trace, {}).get(name, (None, ()))
    if count is None:
        return bind()
    if count == _tape.count(trace, name):
        return [x if rest is None else _jax.join(trace, x, rest) for x, rest in parts]
    return below() if _jax.differentiates(trace) else bind()


def keep(trace: _jax.Trace, name: Any, out: Sequence) -> None:
    """Remember what was written at the trace of a transformation."""
    parts = [_jax.split(trace, x) or (x, None) for x in out]
    _tape.kept.setdefault(trace, {})[name] = _tape.count(trace, name), parts


def meaningful(trace: Any, name: Any) -> Any:
    """Return the first trace at or below `trace` that does more than watch, as nested roots do."""
    while isinstance(trace, _jax.ForwardingTrace) and _frames.find(trace, name) is None:
        trace = _jax.parent(trace)
    return trace


def _landing(trace: Any, name: Any) -> Any:
    """Return the frame that handles a write under `trace`, or the trace that stages it."""
    trace = meaningful(trace, name)
    while _jax.wraps_parent(trace) and _frames.find(trace, name) is None:
        trace = meaningful(_jax.parent(trace), name)
    return _frames.find(trace, name) or trace


def landed(place: _frames.Frame | _jax.Trace, name: Any) -> None:
    """Say that a write reached the frame that handles it, or the trace that stages it."""
    counts = _tape.counts.setdefault(place, {})
    counts[name] = counts.get(name, 0) + 1
