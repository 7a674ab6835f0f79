"""How does state pass through `jax.shard_map`?"""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec

from oryxstate import _jax
from oryxstate._effects import _frames, _purify
from oryxstate._effects._names import touches_state


def rule(trace, args, params):
    """State goes in and comes out replicated: all devices write the same, or JAX says so."""
    if not _frames.any_open():
        return None
    with _jax.set_current_trace(trace):
        staged = _jax.stage_shard_map(args, params)
        if not touches_state(staged.jaxpr):
            return None
        whole = PartitionSpec()
        outer = [
            x if spec == whole else _purify.SLICED
            for x, spec in zip(staged.args, staged.in_specs, strict=True)
        ]
        state = _purify.State((staged.jaxpr, outer))
        state.refuse_fresh("jax.shard_map")
        # Jitted: an eager shard_map compiles each operation and refuses our custom_vjp functions.
        out, new = jax.shard_map(
            jax.jit(_purify.pure(staged.jaxpr), inline=True),
            mesh=params["mesh"],
            in_specs=(whole, whole, *staged.in_specs),
            out_specs=(list(staged.out_specs), whole),
            check_vma=params["check_vma"],
            axis_names=staged.manual_axes,
        )(state.fixed, state.changing, *staged.args)
        state.assign(new)
    return staged.restore(out)
