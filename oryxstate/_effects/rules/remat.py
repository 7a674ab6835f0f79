"""How does state pass through `jax.checkpoint`?"""

from __future__ import annotations

import jax

from oryxstate import _jax
from oryxstate._effects import _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Checkpoint the pure function: what is computed again on the way back has no effects left."""
    jaxpr = params["jaxpr"]
    if not touches_state(jaxpr):
        return None
    with _jax.set_current_trace(trace):
        state = _purify.State((jaxpr, args))
        prevent_cse = params["prevent_cse"]
        if not isinstance(prevent_cse, bool):  # one for each argument
            prevent_cse = (True, True, *prevent_cse)
        run = _purify.cached(
            jaxpr,
            ("remat", params["policy"], prevent_cse, *state.fresh),
            lambda: jax.checkpoint(
                _purify.pure(jaxpr, state.fresh), policy=params["policy"], prevent_cse=prevent_cse
            ),
        )
        out, new = run(state.fixed, state.changing, *args)
        state.assign(new)
    return out
