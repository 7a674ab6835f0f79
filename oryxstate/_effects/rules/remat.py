"""State through `jax.checkpoint`."""

from __future__ import annotations

import jax

from oryxstate._effects._functionalize import cached, pure, thread


def rule(trace, args, params):
    """Checkpoint the pure function: what the backward pass computes again has no effects."""
    jaxpr, policy, prevent_cse = params["jaxpr"], params["policy"], params["prevent_cse"]

    def rebuild(variables):
        # It may be given for each argument.
        which = prevent_cse if isinstance(prevent_cse, bool) else (True, True, *prevent_cse)
        run = cached(
            jaxpr,
            ("remat", policy, which, *variables.declared),
            lambda: jax.checkpoint(
                pure(jaxpr, variables.declared), policy=policy, prevent_cse=which
            ),
        )
        return run(variables.read, variables.written, *args)

    return thread(trace, [(jaxpr, args)], rebuild)
