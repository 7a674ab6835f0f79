"""State through `lax.cond` and `lax.switch`."""

from __future__ import annotations

from jax import lax

from oryxstate._effects import _sown
from oryxstate._effects._functionalize import pure, thread


def rule(trace, args, params):
    """Let each branch return all variables; those that it does not write, as they were."""
    branches = params["branches"]
    index, *operands = args

    def rebuild(variables):
        slots = _sown.slots(branches)
        variables.sown = _sown.forms_of(slots, len(branches))
        runs = [_branch(branch, slots, i, len(branches)) for i, branch in enumerate(branches)]
        return lax.switch(index, runs, variables.read, variables.written, *operands)

    return thread(trace, [(branch, operands) for branch in branches], rebuild, "lax.cond")


def _branch(jaxpr, slots, index, count):
    run = pure(jaxpr)
    if not slots:
        return run

    def branch(*args):
        out, new = run(*args)
        return out, _sown.of_branch(slots, index, count, new)

    return branch
