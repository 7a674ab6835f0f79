"""What a `shard_map` computes, found before it is bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from oryxstate import _jax, _jaxprs


class StagedShardMap(NamedTuple):
    """What a `shard_map` about to be bound computes; `restore` shapes its outputs for JAX."""

    jaxpr: Any
    args: list
    in_specs: Sequence
    out_specs: Sequence
    manual_axes: set
    restore: Callable[[list], Any]


def stage_shard_map(args: Sequence, params: dict) -> StagedShardMap:
    """Trace the body of a `shard_map`, whose output specs are known only then."""
    out_tree: Any = None

    def bind(*xs):
        nonlocal out_tree
        # Not intercepted, or it would be staged again.
        original = type(_jax.SHARD_MAP).bind_with_trace
        avals = [jax.typeof(x) for x in xs]
        out_tree = original(_jax.SHARD_MAP, _jax.current_trace(), xs, avals, dict(params))
        return list(out_tree)

    staged = jax.make_jaxpr(bind)(*args)
    (eqn,) = (e for e in _jaxprs.equations(staged) if e.primitive is _jax.SHARD_MAP)
    outer = getattr(staged, "jaxpr", staged)
    values = dict(zip([*outer.constvars, *outer.invars], [*staged.consts, *args], strict=True))
    operands = [v.val if isinstance(v, _jax.Literal) else values[v] for v in eqn.invars]
    body, specs = eqn.params["jaxpr"], (eqn.params["in_specs"], eqn.params["out_specs"])
    renamed = "newly_manual_axes" in params  # in 0.10.1
    manual_axes = params["newly_manual_axes"] if renamed else params["manual_axes"]
    return StagedShardMap(body, operands, *specs, set(manual_axes), out_tree.update)


def varying_axes(aval: Any) -> frozenset:
    """Return the mesh axes along which a value may differ; none if that is not checked."""
    return frozenset(getattr(getattr(aval, "mat", None), "varying", ()))
