"""State through `lax.custom_linear_solve`."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from oryxstate import _jaxprs
from oryxstate._effects import _frames, _sown
from oryxstate._effects._derivatives import jvp, state_jvp
from oryxstate._effects._functionalize import Part, thread

VECTOR = Part("`custom_linear_solve` takes for a vector (`b`)")


def rule(trace, args, params):
    """Let the state that `solve` leaves be the update; the other functions only read.

    `solve` is the one function that is run; `matvec` and its transpose only define derivatives.
    JAX takes what `solve` returns beside the solution for a constant, so the new state has the
    natural derivative of `solve`.
    """
    jaxprs, consts, b = _jaxprs.linear_solve_parts(params, args)
    jaxprs = {name: jaxpr for name, jaxpr in jaxprs.items() if jaxpr is not None}

    def system(read, written, inputs):
        return _system(jaxprs, read, written, *inputs)

    sown = _sown.forms(jaxprs["solve"])

    def rebuild(variables):
        variables.sown = {name: [f for _, f in kinds] for name, kinds in sown.items()}
        function = _with_own_derivative(system, jaxprs) if variables.written else system
        return function(variables.read, variables.written, (consts, list(b)))

    vector = [VECTOR] * len(b)
    computations = [(jaxprs[name], [*consts[name], *vector]) for name in jaxprs]
    return thread(trace, computations, rebuild, "lax.custom_linear_solve")


def _with_own_derivative(system, jaxprs):
    """Give the outputs the derivative of the system, and the new state that of `solve`."""

    @jax.custom_jvp
    def function(read, written, inputs):
        return system(read, written, inputs)

    def rule(primals, tangents):
        out, out_dot = jvp(lambda *inputs: system(*inputs)[0], primals, tangents)
        new, new_dot = state_jvp(
            lambda r, w, xs: _run(jaxprs, "solve", r, w, *xs)[1], primals, tangents
        )
        return (out, new), (out_dot, new_dot)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def _run(jaxprs, name, read, written, consts, x):
    with _frames.replay({**read, **written}) as frame:
        out = _jaxprs.evaluate(jaxprs[name], [*consts[name], *x])
        new = {key: frame.variables[key].leaves for key in written}
        return out, {**new, **{key: _sown.values(frame, key) for key in _sown.forms(jaxprs[name])}}


def _system(jaxprs, read, written, consts, b):
    def solve(_, x):
        out, new = _run(jaxprs, "solve", read, written, consts, x)
        return out[: len(b)], (out[len(b) :], new)

    def transpose_solve(_, x):
        out, _ = _run(jaxprs, "transpose_solve", read, written, consts, x)
        return out[: len(b)], (out[len(b) :], {**_sown.nothing(jaxprs["solve"]), **written})

    solved: Any = lax.custom_linear_solve(
        lambda x: _run(jaxprs, "matvec", read, written, consts, x)[0],
        b,
        solve,
        transpose_solve if "transpose_solve" in jaxprs else None,
        has_aux=True,
    )
    out, (aux, new) = solved
    return [*out, *aux], new
