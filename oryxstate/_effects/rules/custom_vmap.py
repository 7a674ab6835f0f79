"""State through `jax.custom_batching.custom_vmap`."""

from __future__ import annotations

from typing import Any

import jax
from jax.custom_batching import custom_vmap

from oryxstate import _jax, _jaxprs
from oryxstate._effects import _frames
from oryxstate._effects._functionalize import pure_uncached, thread


def rule(trace, args, params):
    """Take outputs from the user's rule, updates from the function itself, mapped."""
    jaxpr = params["call"]

    def rebuild(variables):
        return _rebuilt(jaxpr, params)(variables.read, variables.written, list(args))

    return thread(trace, [(jaxpr, args)], rebuild, "custom_vmap")


def _rebuilt(jaxpr, params):
    run = pure_uncached(jaxpr)

    @custom_vmap
    def function(read, written, args):
        return run(read, written, *args)

    @function.def_vmap
    def _(axis_size, batched, read, written, args):
        axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
        inputs = read, written, args
        (out, new), mapped = _mapped(lambda r, w, xs: run(r, w, *xs), axes, inputs)
        if not any(jax.tree.leaves(batched[:2])):  # the user's rule knows of no mapped state
            with _frames.replay({**read, **written}):
                out, out_mapped = _jaxprs.vmap_rule(params, axis_size, batched[2], args)
            mapped = out_mapped, mapped[1]
        return (out, new), mapped

    return function


def _mapped(function, axes, inputs):
    """Map a function; outputs that do not depend on the axis stay unmapped. Say which are."""
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
