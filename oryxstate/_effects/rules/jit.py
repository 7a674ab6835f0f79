"""How does state pass through `jax.jit`?"""

from __future__ import annotations

import jax

from oryxstate import _jax
from oryxstate._effects import _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Jit the pure function; donation is dropped, since the caller's arguments are still needed."""
    jaxpr = params["jaxpr"]
    if not touches_state(jaxpr):
        return None
    with _jax.set_current_trace(trace):
        state = _purify.State((jaxpr, args))
        key = ("jit", params["inline"], params["name"], *state.fresh)
        run = _purify.cached(jaxpr, key, lambda: _jitted(jaxpr, params, state.fresh))
        out, new = run(state.fixed, state.changing, *args)
        state.assign(new)
    return out


def _jitted(jaxpr, params, fresh):
    run = _purify.pure(jaxpr, fresh)

    def named(fixed, changing, *args):
        return run(fixed, changing, *args)

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
