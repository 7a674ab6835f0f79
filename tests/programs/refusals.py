"""What JAX itself refuses, and attempts at programs that may be refused."""

from __future__ import annotations

import contextlib

import jax
from hypothesis import assume
from jax._src.dispatch import runtime_tokens
from programs.grammar import COLLECTIVES, Host, Within
from programs.nodes import RULES, children, holds, may_refuse, parts

import oryxstate as ox


def of(*kinds):
    """Whether a program holds one of these kinds."""
    return lambda node: holds(node, *kinds)


def calls_back(node):
    """Whether a program holds a callback."""
    return any(isinstance(part, Host) for part in parts(node))


# What JAX says, and of which programs.
REFUSED_BY_JAX = {
    "Reverse-mode differentiation does not work for lax.while_loop": lambda node: True,
    "can't apply forward-mode autodiff (jvp) to a custom_vjp function": lambda node: True,
    "Linearization failed to produce known values for all output primals": of("custom_vmap"),
    # What 0.10.0 says of such a loop in two derivatives.
    "unsupported operand type(s) for +: 'NoneType' and 'tuple'": of(
        "fori traced", "while", "while state", "while carry", "thread while"
    ),
    # A rule that closes over what stands outside of a branch or loop, and runs after its trace.
    "No constant handler for type": of(*RULES),
    "Encountered an unexpected tracer": of(*RULES),
    # Two shard_maps of different size, or what a callback returns beside one.
    "Received incompatible devices for jitted computation": of("shard_map", "shard_map whole"),
    "Cannot convert GSPMDSharding": of("shard_map", "shard_map whole"),
    # Callbacks with effects inside loops, branches and functions that are differentiated.
    "Effects not supported in": calls_back,
    "IO effect not supported in": calls_back,
}


def refused_by_jax(node, error):
    """Whether JAX cannot do this program without us either."""
    return any(text in str(error) and known(node) for text, known in REFUSED_BY_JAX.items())


def known_to_jax(node, sharded=False):
    """Whether JAX 0.10 to 0.12 can do it.

    It has no collectives of a `vmap` in a `shard_map`, and no way to tell a rule of `custom_vmap`
    that an array which it closes over is mapped.
    """
    if isinstance(node, Within) and node.kind == "custom_vmap" and holds(node.body, "weight"):
        return False
    if isinstance(node, Within) and node.kind in COLLECTIVES:
        if sharded:
            return False
        sharded = node.kind.startswith("shard_map")
    return all(known_to_jax(part, sharded) for part in children(node))


def attempt(node, call, *args, differentiated=False, by_state=False):
    """The result, None if it is refused as it may be; a program that JAX refuses is no example."""
    assume(known_to_jax(node))
    try:
        result = call(*args)
        if calls_back(node):
            jax.block_until_ready(result)
            jax.effects_barrier()
        return result
    except Exception as error:
        if calls_back(node):
            _forget_failures()
        assume(not refused_by_jax(node, error))
        if _is_ours(error) and may_refuse(node, differentiated, by_state):
            return None
        raise


def _forget_failures():
    """Keep what a callback of this program raised out of the next one's barrier."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        jax.effects_barrier()
    runtime_tokens.clear()  # which up to JAX 0.11 keeps what has failed


def _is_ours(error):
    """Whether it is an EffectError, or what JAX makes of one in a callback."""
    return isinstance(error, ox.EffectError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "EffectError" in str(error)
    )
