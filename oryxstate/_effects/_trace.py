"""The trace at which the variables of a root call live, and the opening of a root call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from oryxstate import _interception, _jax, _jaxprs
from oryxstate._effects import _frames
from oryxstate._effects._names import Name, StateEffect, touches_state
from oryxstate._errors import EffectError


class StateTrace(_jax.ForwardingTrace):
    """Marks where the variables of a root call live, and refuses what would lose their updates.

    Everything is handed to the parent trace as it is. Loops and branches that touch state never
    come here: their rule has made them pure when they were bound. An eager root call does without:
    its variables live at JAX's own trace for evaluation, and what is refused here is refused there
    when it is evaluated or compiled.
    """

    def process_primitive(self, primitive, tracers, params, /):
        if primitive not in _interception.INTERCEPTED and _jaxprs.has_subjaxpr(params):
            refuse_state_inside(primitive, params)
        return super().process_primitive(primitive, tracers, params)


def refuse_state_inside(primitive: Any, params: dict) -> None:
    """Raise if a computation inside these parameters touches state: its primitive has no rule."""
    for jaxpr in _jaxprs.subjaxprs(params):
        if touches_state(jaxpr):
            names = sorted(e.name for e in jaxpr.effects if isinstance(e, StateEffect))
            raise no_rule(names[0], primitive)


def no_rule(name: Name, primitive: Any) -> EffectError:
    """Return the error for state inside a primitive that is not known."""
    return EffectError(
        f"state '{name}' is used inside the JAX primitive `{primitive}`, for which oryxstate has "
        "no rule, so an update would be lost. If it is only read, hand on the value, "
        "`ox.snapshot(module)`. Else hand the state over explicitly: `y, module = "
        "module.call_and_update(x)` inside, the new module returned, and "
        f"`assign({name.field}=...)` outside."
    )


_interception.intercept_eager_jit(touches_state)


@contextlib.contextmanager
def open_frame(declaring: bool | None = None) -> Iterator[_frames.Frame]:
    """Open the frame of a root call, at a trace of its own where something is being traced.

    Args:
        declaring: for a function, whether it declares its variables now or finds them.
    """
    trace = _jax.current_trace()
    if isinstance(trace, StateTrace) or _jax.evaluates(trace):  # nested roots share one trace
        with _frames.opened(trace, declaring) as frame:
            yield frame
        return
    trace = StateTrace(trace)
    with _jax.set_current_trace(trace), _frames.opened(trace, declaring) as frame:
        yield frame
