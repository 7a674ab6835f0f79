"""State through `lax.cond` and `lax.switch`."""

from __future__ import annotations

from jax import lax

from oryxstate._effects._functionalize import pure, thread


def rule(trace, args, params):
    """Let each branch return all variables; those that it does not write, as they were."""
    branches = params["branches"]
    index, *operands = args

    def rebuild(variables):
        runs = [pure(branch) for branch in branches]
        return lax.switch(index, runs, variables.read, variables.written, *operands)

    return thread(trace, [(branch, operands) for branch in branches], rebuild, "lax.cond")
