"""How does state pass through `jax.custom_batching.custom_vmap`?"""

from __future__ import annotations

from typing import Any

import jax
from jax.custom_batching import custom_vmap

from oryxstate import _jax
from oryxstate._effects import _frames, _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """Outputs come from the user's rule, updates from the function itself, mapped."""
    jaxpr = params["call"]
    if not touches_state(jaxpr):
        return None
    with _jax.set_current_trace(trace):
        state = _purify.State((jaxpr, args))
        state.refuse_fresh("custom_vmap")
        out, new = _rebuilt(jaxpr, params)(state.fixed, state.changing, list(args))
        state.assign(new)
    return out


def _rebuilt(jaxpr, params):
    run = _purify.pure_once(jaxpr)

    @custom_vmap
    def function(fixed, changing, args):
        return run(fixed, changing, *args)

    @function.def_vmap
    def _(axis_size, batched, fixed, changing, args):
        axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
        inputs = fixed, changing, args
        (out, new), mapped = _mapped(lambda f, c, xs: run(f, c, *xs), axes, inputs)
        if not any(jax.tree.leaves(batched[:2])):  # the user's rule knows of no mapped state
            with _frames.replay({**fixed, **changing}):
                out, out_mapped = _jax.vmap_rule(params, axis_size, batched[2], args)
            mapped = out_mapped, mapped[1]
        return (out, new), mapped

    return function


def _mapped(function, axes, inputs):
    """`jax.vmap` that leaves outputs which do not depend on the axis unmapped, and says which."""
    if not jax.tree.leaves(axes):  # JAX differentiates a rule where tangents alone are mapped
        out = function(*inputs)
        return out, jax.tree.map(lambda _: False, out)
    mapped: Any = None

    def watched(*args):
        nonlocal mapped
        out = function(*args)
        mapped = jax.tree.map(_jax.is_mapped, out)
        return out

    jax.eval_shape(jax.vmap(watched, axes), *inputs)
    out_axes = jax.tree.map(lambda b: 0 if b else None, mapped)
    return jax.vmap(function, axes, out_axes)(*inputs), mapped
