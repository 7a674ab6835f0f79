"""State through JAX's high-level primitives: `lax.custom_root`, the new checkpoint, and others."""

from __future__ import annotations

import jax

from oryxstate import _hi_primitives, _jax
from oryxstate._effects._names import touches_state
from oryxstate._effects.rules import custom_derivatives, remat


def rule(trace, args, params):
    """Send each to the rule of what it is; any other is a function with a derivative of its own."""
    primitive = _hi_primitives.HiPrimitive(params)
    if not touches_state(primitive):
        return None
    checkpoint = primitive.checkpoint
    if checkpoint is not None:
        return remat.rule(trace, args, checkpoint)
    with _jax.set_current_trace(trace):
        jaxpr = jax.make_jaxpr(primitive.run)(list(args))
    return custom_derivatives.rebuild(trace, primitive, jaxpr, args)
