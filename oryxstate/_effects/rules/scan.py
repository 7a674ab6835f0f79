"""How does state pass through `lax.scan` (and `map`, `fori_loop`, `associative_scan` on it)?"""

from __future__ import annotations

from jax import lax

from oryxstate import _jax
from oryxstate._effects import _purify
from oryxstate._effects._names import touches_state

SLICE = _purify.Part("`scan` hands to its body in slices (`xs`)")


def rule(trace, args, params):
    """Let the state join the carry; no iteration leaves it as it is."""
    jaxpr = params["jaxpr"]
    if not touches_state(jaxpr):
        return None
    num_consts, num_carry = _jax.scan_counts(params)
    split = num_consts + num_carry
    consts, carry, xs = args[:num_consts], args[num_consts:split], args[split:]
    with _jax.set_current_trace(trace):
        state = _purify.State((jaxpr, [*consts, *carry, *(SLICE for _ in xs)]))
        state.refuse_fresh("lax.scan")
        body = _purify.cached(jaxpr, ("scan", num_carry), lambda: _body(jaxpr, num_carry))
        (_, new, _, carry), ys = lax.scan(
            body,
            (state.fixed, state.changing, list(consts), list(carry)),
            list(xs),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        state.assign(new)
    return [*carry, *ys]


def _body(jaxpr, num_carry):
    # Constants travel in the carry so that the body closes over nothing and JAX can cache it; JAX
    # moves what a body hands on unchanged back to the constants.
    run = _purify.pure(jaxpr)

    def body(carry, x):
        fixed, changing, consts, carried = carry
        out, changing = run(fixed, changing, *consts, *carried, *x)
        return (fixed, changing, consts, out[:num_carry]), out[num_carry:]

    return body
