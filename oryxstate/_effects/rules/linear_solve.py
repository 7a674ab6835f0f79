"""How does state pass through `lax.custom_linear_solve`?"""

from __future__ import annotations

import jax
from jax import lax

from oryxstate import _jax
from oryxstate._effects import _frames, _purify
from oryxstate._effects._names import touches_state

VECTOR = _purify.Part("`custom_linear_solve` takes for a vector (`b`)")


def rule(trace, args, params):
    """The state that `solve` leaves is the update; the other functions read it and write nothing.

    `solve` is the one function that is run; `matvec` and its transpose only define derivatives.
    """
    jaxprs, consts, b = _jax.linear_solve_parts(params, args)
    jaxprs = {name: jaxpr for name, jaxpr in jaxprs.items() if jaxpr is not None}
    if not any(map(touches_state, jaxprs.values())):
        return None
    with _jax.set_current_trace(trace):
        vector = [VECTOR] * len(b)
        state = _purify.State(*((jaxprs[name], [*consts[name], *vector]) for name in jaxprs))
        state.refuse_fresh("lax.custom_linear_solve")
        function = _rebuilt(jaxprs) if state.changing else _system(jaxprs)
        out, new = function(state.fixed, state.changing, consts, list(b))
        state.assign(new)
    return out


def _run(jaxprs, name, fixed, changing, consts, x):
    with _frames.replay({**fixed, **changing}) as frame:
        out = _jax.evaluate(jaxprs[name], [*consts[name], *x])
        return out, {key: frame.values[key] for key in changing}


def _system(jaxprs):
    def system(fixed, changing, consts, b):
        def solve(_, x):
            out, new = _run(jaxprs, "solve", fixed, changing, consts, x)
            return out[: len(b)], (out[len(b) :], new)

        def transpose_solve(_, x):
            out, _ = _run(jaxprs, "transpose_solve", fixed, changing, consts, x)
            return out[: len(b)], (out[len(b) :], changing)

        out, (aux, new) = lax.custom_linear_solve(
            lambda x: _run(jaxprs, "matvec", fixed, changing, consts, x)[0],
            b,
            solve,
            transpose_solve if "transpose_solve" in jaxprs else None,
            has_aux=True,
        )
        return [*out, *aux], new

    return system


def _rebuilt(jaxprs):
    """The outputs have the derivative of the system, the new state the natural one of `solve`.

    JAX takes what `solve` returns beside the solution for a constant.
    """
    system = _system(jaxprs)

    @jax.custom_jvp
    def function(fixed, changing, consts, b):
        return system(fixed, changing, consts, b)

    @function.defjvp
    def _(primals, tangents):
        out, out_dot = jax.jvp(lambda *xs: system(*xs)[0], primals, tangents)
        new, new_dot = jax.jvp(lambda *xs: _run(jaxprs, "solve", *xs)[1], primals, tangents)
        return (out, new), (out_dot, new_dot)

    return function
