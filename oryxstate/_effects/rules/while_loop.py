"""How does state pass through `lax.while_loop`?"""

from __future__ import annotations

from jax import lax

from oryxstate import _jax
from oryxstate._effects import _purify
from oryxstate._effects._names import touches_state
from oryxstate._errors import EffectError


def rule(trace, args, params):
    """Let the state join the carry; the predicate reads it and may not write it."""
    cond_jaxpr, body_jaxpr = params["cond_jaxpr"], params["body_jaxpr"]
    if not (touches_state(cond_jaxpr) or touches_state(body_jaxpr)):
        return None
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    cond_consts, body_consts, init = args[: split[0]], args[split[0] : split[1]], args[split[1] :]
    _refuse_writes(cond_jaxpr)
    with _jax.set_current_trace(trace):
        state = _purify.State(
            (cond_jaxpr, [*cond_consts, *init]), (body_jaxpr, [*body_consts, *init])
        )
        state.refuse_fresh("lax.while_loop")
        cond = _purify.cached(cond_jaxpr, "while", lambda: _cond(cond_jaxpr))
        body = _purify.cached(body_jaxpr, "while", lambda: _body(body_jaxpr))
        consts = list(cond_consts), list(body_consts)
        carry = lax.while_loop(cond, body, (state.fixed, state.changing, *consts, list(init)))
        state.assign(carry[1])
    return carry[-1]


def _refuse_writes(cond_jaxpr):
    for name, use in _purify.uses(cond_jaxpr).items():
        if use.written:
            raise EffectError(
                f"state '{name}' is written in the predicate of `lax.while_loop`, which may only "
                "read it. Write it in the body, or test a value that the body has put in the carry."
            )


def _cond(jaxpr):
    run = _purify.pure(jaxpr)

    def cond(carry):
        fixed, changing, consts, _, carried = carry
        (go_on,), _ = run(fixed, changing, *consts, *carried)
        return go_on

    return cond


def _body(jaxpr):
    run = _purify.pure(jaxpr)

    def body(carry):
        fixed, changing, cond_consts, consts, carried = carry
        carried, changing = run(fixed, changing, *consts, *carried)
        return fixed, changing, cond_consts, consts, carried

    return body
