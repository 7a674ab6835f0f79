"""State through `lax.while_loop`."""

from __future__ import annotations

from jax import lax

from oryxstate._effects import _sown
from oryxstate._effects._functionalize import cached, pure, thread, uses
from oryxstate._errors import EffectError


def rule(trace, args, params):
    """Let the state join the carry; the predicate reads it and may not write it."""
    cond_jaxpr, body_jaxpr = params["cond_jaxpr"], params["body_jaxpr"]
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    cond_consts, body_consts, init = args[: split[0]], args[split[0] : split[1]], args[split[1] :]

    def rebuild(variables):
        _refuse_writes(cond_jaxpr)
        cond = cached(cond_jaxpr, "while", lambda: _cond(cond_jaxpr))
        body = cached(body_jaxpr, "while", lambda: _body(body_jaxpr))
        consts = list(cond_consts), list(body_consts)
        sown, variables.sown = _sown.not_yet(_sown.forms(body_jaxpr))
        state = variables.read, variables.written
        carry = lax.while_loop(cond, body, (*state, *consts, sown, list(init)))
        return carry[-1], {**carry[1], **carry[-2]}

    computations = [(cond_jaxpr, [*cond_consts, *init]), (body_jaxpr, [*body_consts, *init])]
    return thread(trace, computations, rebuild, "lax.while_loop")


def _refuse_writes(cond_jaxpr):
    for name in _sown.forms(cond_jaxpr):
        raise EffectError(
            f"`{name}` is captured in the predicate of `lax.while_loop`, which JAX may evaluate "
            "more often than the body. Capture it in the body."
        )
    for name, use in uses(cond_jaxpr).items():
        if use.written:
            raise EffectError(
                f"state '{name}' is written in the predicate of `lax.while_loop`, which may only "
                "read it. Write it in the body, or test a value that the body has put in the carry."
            )


def _cond(jaxpr):
    run = pure(jaxpr)

    def cond(carry):
        read, written, consts, _, _, carried = carry
        (go_on,), _ = run(read, written, *consts, *carried)
        return go_on

    return cond


def _body(jaxpr):
    run, forms = pure(jaxpr), _sown.forms(jaxpr)

    def body(carry):
        read, written, cond_consts, consts, _, carried = carry
        carried, new = run(read, written, *consts, *carried)
        written = {name: new.pop(name) for name in written}
        sown = {name: list(map(_sown.taken, new[name], kinds)) for name, kinds in forms.items()}
        return read, written, cond_consts, consts, sown, carried

    return body
