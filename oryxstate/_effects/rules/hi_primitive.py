"""How does state pass through JAX's high-level primitives (from 0.11: `lax.custom_root`)?"""

from __future__ import annotations

import jax

from oryxstate import _jax
from oryxstate._effects import _frames, _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Expand the primitive at once: outputs keep its derivative, the new state its natural one."""
    primitive = _jax.HiPrimitive(params)
    if not touches_state(primitive):
        return None
    with _jax.set_current_trace(trace):
        expanded = jax.make_jaxpr(primitive.expand)(*args)
        state = _purify.State((expanded, args))
        state.refuse_fresh(str(primitive))
        function = _rebuilt(primitive, expanded)
        out, new = function(state.fixed, state.changing, list(args))
        state.assign(new)
    return out


def _rebuilt(primitive, expanded):
    run = _purify.pure_once(expanded)

    @jax.custom_jvp
    def function(fixed, changing, args):
        return run(fixed, changing, *args)

    @function.defjvp
    def _(primals, tangents):
        if str(primitive) == "CustomRoot":
            _purify.refuse_derivative_of_root(expanded)
        fixed, changing, args = primals
        with _frames.replay({**fixed, **changing}):
            out, out_dot = primitive.jvp(args, tangents[2])
        new, new_dot = jax.jvp(lambda f, c, xs: run(f, c, *xs)[1], primals, tangents)
        return (out, new), (out_dot, new_dot)

    return function
