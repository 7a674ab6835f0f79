"""State through `jax.shard_map`."""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec

from oryxstate import _jax, _jaxprs, _shard_maps
from oryxstate._effects import _frames, _primitives, _sown
from oryxstate._effects._functionalize import Part, partial_error, pure, thread
from oryxstate._effects._names import touches_state
from oryxstate._errors import EffectError

SHARD = Part("`shard_map` hands to each device in part (`in_specs`)")


def rule(trace, args, params):
    """Hand state in and out replicated: all devices write the same, or the write is refused."""
    if not _frames.active():
        return None
    with _jax.set_current_trace(trace):
        staged = _shard_maps.stage_shard_map(args, params)
        if not touches_state(staged.jaxpr):
            return None
        _refuse_varying(staged)
    whole = PartitionSpec()
    outer = [
        x if spec == whole else SHARD for x, spec in zip(staged.args, staged.in_specs, strict=True)
    ]

    axes = _sown_axes(staged, params["check_vma"])
    run = pure(staged.jaxpr)

    def per_device(*args):
        out, new = run(*args)
        sown = {
            name: [
                tuple(x[None] for x in leaves) if along else leaves
                for leaves, along in zip(new[name], each, strict=True)
            ]
            for name, each in axes.items()
        }
        return out, {name: new[name] for name in new if name not in sown}, sown

    def rebuild(variables):
        for name, each in axes.items():
            forms = zip(variables.sown[name], each, strict=True)
            variables.sown[name] = [f.stacked(None) if along else f for f, along in forms]
        # Jitted: an eager shard_map compiles each operation and refuses our custom_vjp functions.
        out, new, sown = jax.shard_map(
            jax.jit(per_device, inline=True),
            mesh=params["mesh"],
            in_specs=(whole, whole, *staged.in_specs),
            out_specs=(
                list(staged.out_specs),
                whole,
                {
                    name: [PartitionSpec(along) if along else whole for along in axes[name]]
                    for name in axes
                },
            ),
            check_vma=params["check_vma"],
            axis_names=staged.manual_axes,
        )(variables.read, variables.written, *staged.args)
        return out, {**new, **sown}

    return staged.restore(thread(trace, [(staged.jaxpr, outer)], rebuild, "jax.shard_map"))


def _sown_axes(staged, checked):
    """Return the mesh axes along which sown values may differ; outputs have one axis for them."""

    def axes(avals):
        varying = frozenset().union(*map(_shard_maps.varying_axes, avals)) if checked else None
        known = staged.manual_axes if varying is None else varying & staged.manual_axes
        return tuple(sorted(known))

    found = _sown.forms(staged.jaxpr)
    return {name: [axes(avals) for avals, _ in kinds] for name, kinds in found.items()}


def _refuse_varying(staged):
    """Raise if devices read or write state that differs; JAX's own error names no state."""
    for eqn in _jaxprs.equations(staged.jaxpr):
        if eqn.primitive not in (_primitives.variable_p, _primitives.assign_p):
            continue
        axes = frozenset().union(*(_shard_maps.varying_axes(var.aval) for var in eqn.outvars))
        if axes & staged.manual_axes:
            name = eqn.params["var"]
            if eqn.primitive is _primitives.variable_p:
                raise partial_error(name, SHARD)
            along = ", ".join(map(repr, sorted(axes & staged.manual_axes)))
            raise EffectError(
                f"state '{name}' is written inside `jax.shard_map` with a value that differs along "
                f"the mesh axis {along}, but there is one state for all devices. Reduce the value "
                f"before the write, `jax.lax.pmean(value, {along})`, or give each device a state "
                "of its own: call the module explicitly, `y, module = module.call_and_update(x)`, "
                "and return `module` along that axis (`out_specs`)."
            )
