"""How does state pass through `lax.cond` and `lax.switch`?"""

from __future__ import annotations

from jax import lax

from oryxstate import _jax
from oryxstate._effects import _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Each branch returns the state of all; those that a branch does not write, as they were."""
    branches = params["branches"]
    if not any(map(touches_state, branches)):
        return None
    index, *operands = args
    with _jax.set_current_trace(trace):
        state = _purify.State(*((branch, operands) for branch in branches))
        state.refuse_fresh("lax.cond")
        runs = [_purify.pure(branch) for branch in branches]
        out, new = lax.switch(index, runs, state.fixed, state.changing, *operands)
        state.assign(new)
    return out
