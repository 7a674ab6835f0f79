"""How does state pass through `lax.custom_linear_solve`?"""

from __future__ import annotations

from jax import lax

from oryxstate import _jax
from oryxstate._effects import _frames, _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """The state that `solve` leaves is the update; the other functions read it and write nothing.

    `solve` is the one function that is run; `matvec` and its transpose only define derivatives.
    """
    jaxprs, consts, b = _jax.linear_solve_parts(params, args)
    jaxprs = {name: jaxpr for name, jaxpr in jaxprs.items() if jaxpr is not None}
    if not any(map(touches_state, jaxprs.values())):
        return None
    with _jax.set_current_trace(trace):
        opaque = [_purify.SLICED] * len(b)
        state = _purify.State(*((jaxprs[name], [*consts[name], *opaque]) for name in jaxprs))
        state.refuse_fresh("lax.custom_linear_solve")
        held = {**state.fixed, **state.changing}

        def run(name, x):
            with _frames.replay(held) as frame:
                out = _jax.evaluate(jaxprs[name], [*consts[name], *x])
                return out, {key: frame.values[key] for key in state.changing}

        def solve(_, x):
            out, new = run("solve", x)
            return out[: len(b)], (out[len(b) :], new)

        def transpose_solve(_, x):
            out, _ = run("transpose_solve", x)
            return out[: len(b)], (out[len(b) :], dict(state.changing))

        out, (aux, new) = lax.custom_linear_solve(
            lambda x: run("matvec", x)[0],
            list(b),
            solve,
            transpose_solve if "transpose_solve" in jaxprs else None,
            has_aux=True,
        )
        state.assign(new)
    return [*out, *aux]
