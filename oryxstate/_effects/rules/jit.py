"""State through `jax.jit`."""

from __future__ import annotations

import jax

from oryxstate._effects._functionalize import cached, pure, thread
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Jit the pure function; donation is dropped, since the caller's arguments are still needed."""
    jaxpr = params["jaxpr"]
    if not touches_state(jaxpr):  # most are small functions of jax.numpy
        return None

    def rebuild(variables):
        key = ("jit", params["inline"], params["name"], *variables.declared)
        run = cached(jaxpr, key, lambda: _jitted(jaxpr, params, variables.declared))
        return run(variables.read, variables.written, *args)

    return thread(trace, [(jaxpr, args)], rebuild)


def _jitted(jaxpr, params, declared):
    run = pure(jaxpr, declared)

    def named(read, written, *args):
        return run(read, written, *args)

    named.__name__ = named.__qualname__ = params["name"]
    shardings = {}
    if any(map(_is_sharding, params["in_shardings"])):
        shardings["in_shardings"] = (None, None, *map(_given, params["in_shardings"]))
    if any(map(_is_sharding, params["out_shardings"])):
        shardings["out_shardings"] = ([*map(_given, params["out_shardings"])], None)
    return jax.jit(named, inline=params["inline"], keep_unused=params["keep_unused"], **shardings)


def _is_sharding(value):
    return isinstance(value, jax.sharding.Sharding)


def _given(value):
    return value if _is_sharding(value) else None
