"""State through `lax.scan` (and `map`, `fori_loop`, `associative_scan`, which are built on it)."""

from __future__ import annotations

from jax import lax

from oryxstate import _jaxprs
from oryxstate._effects import _sown
from oryxstate._effects._functionalize import Slices, cached, pure, thread
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Let the state join the carry, and that of a stack of modules the `xs` and `ys`."""
    jaxpr = params["jaxpr"]
    if not touches_state(jaxpr):
        return None
    num_consts, num_carry = _jaxprs.scan_counts(params)
    split = num_consts + num_carry
    consts, carry, xs = args[:num_consts], args[num_consts:split], args[split:]

    def rebuild(variables):
        variables.sown = _sown.stacked(variables.sown, params["reverse"])
        (_, written, _, carried), (ys, stacked) = lax.scan(
            cached(jaxpr, ("scan", num_carry), lambda: _body(jaxpr, num_carry)),
            (variables.read, variables.written, list(consts), list(carry)),
            (variables.stacks_read, variables.stacks_written, list(xs)),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        return [*carried, *ys], {**written, **stacked}

    return thread(trace, [(jaxpr, [*consts, *carry, *map(Slices, xs)])], rebuild, "lax.scan")


def _body(jaxpr, num_carry):
    # Constants travel in the carry so that the body closes over nothing and JAX can cache it; JAX
    # moves what a body hands on unchanged back to the constants.
    run = pure(jaxpr)

    def body(carry, x):
        (read, written, consts, carried), (slices_read, slices_written, xs) = carry, x
        state = {**read, **slices_read}, {**written, **slices_written}
        out, new = run(*state, *consts, *carried, *xs)
        stacked = {name: new[name] for name in new if name not in written}  # slices, what is sown
        written = {name: new[name] for name in written}
        return (read, written, consts, out[:num_carry]), (out[num_carry:], stacked)

    return body
