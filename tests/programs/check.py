"""The checks of a program: alone, and under an outer transformation of the whole call."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume
from jax.sharding import Mesh, PartitionSpec
from programs import oracle, states
from programs.dual import NearlyError, constant, derivative
from programs.grammar import (
    BATCHES,
    BRANCHES,
    COLLECTIVES,
    DERIVATIVES,
    Two,
    Within,
    holds,
    nodes,
    writes,
)
from programs.oracle_transformations import MeaninglessError, entered

import oryxstate as ox

INPUTS = 0.7, -0.2


def may_refuse(node, differentiated=False):
    """Whether it holds what we refuse, be it in a branch that is not taken.

    That is a predicate that writes, the derivative of a root, and a write that depends on a mapped
    axis. Which of the writes in a `vmap` do is for the oracle to say.
    """
    if holds(node, "while writes"):
        return True
    root = holds(node, "custom_root") and (differentiated or holds(node, *DERIVATIVES))
    return root or any(
        isinstance(part, Within) and part.kind in (*BATCHES, "map batched") and writes(part.body)
        for part in nodes(node)
    )


def of(*kinds):
    """Whether a program holds one of these kinds."""
    return lambda node: holds(node, *kinds)


def rule_in_branch(node):
    """Whether a function with a derivative of its own is called in a branch."""
    return any(
        isinstance(part, Two) and part.kind in BRANCHES and holds(part, *RULES)
        for part in nodes(node)
    )


RULES = "custom_jvp", "custom_jvp read", "custom_vjp"
# What JAX says, and of which programs.
REFUSED_BY_JAX = {
    "Reverse-mode differentiation does not work for lax.while_loop": lambda node: True,
    "can't apply forward-mode autodiff (jvp) to a custom_vjp function": lambda node: True,
    "Linearization failed to produce known values for all output primals": of("custom_vmap"),
    # What 0.10.0 says of such a loop in two derivatives.
    "unsupported operand type(s) for +: 'NoneType' and 'tuple'": of(
        "fori traced", "while", "while state", "while carry"
    ),
    # A rule that closes over what stands outside of a branch, and runs when that has been traced.
    "No constant handler for type": of(*RULES),
    "belongs to a root call that has ended": of(*RULES),
    "Encountered an unexpected tracer": rule_in_branch,
    # Two shard_maps of different size, or what a callback returns beside one.
    "Received incompatible devices for jitted computation": of("shard_map", "shard_map whole"),
    "Cannot convert GSPMDSharding": of("shard_map", "shard_map whole"),
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
    return all(
        known_to_jax(part, sharded)
        for part in vars(node).values()
        if dataclasses.is_dataclass(part)
    )


def attempt(node, call, *args, differentiated=False):
    """The result, None if it is refused as it may be; a program that JAX refuses is no example."""
    try:
        return call(*args)
    except Exception as error:
        assume(not refused_by_jax(node, error))
        if isinstance(error, ox.EffectError) and may_refuse(node, differentiated):
            return None
        raise


def expected(node, state, x):
    """`(output, new state)` by the oracle, None if it has no meaning."""
    assume(known_to_jax(node))
    try:
        y, new = oracle.run(node, entered(state), x)
    except NearlyError:
        assume(False)
    except MeaninglessError:
        return None
    numbers = [constant(y), *(x for leaf in states.arrays(new) for x in leaf.ravel())]
    assume(all(abs(x) < states.HUGE or isinstance(x, np.integer) for x in numbers))
    return y, new


def agree(result, before, end):
    """An output and a model against what the oracle says."""
    assert end is not None, "what has no meaning was not refused"
    (y, new), (expected_y, state) = result, end
    np.testing.assert_allclose(y, constant(expected_y), **states.CLOSE)
    states.compare(new, before, state)


def alone(node):
    """Eagerly and jitted, and each called again with the state that the first call left."""
    start = states.start(0.0)
    for call in (ox.call_and_update, jax.jit(ox.call_and_update)):
        model, state = states.model(node, start), start
        for x in INPUTS:
            end = expected(node, state, x)
            result = attempt(node, call, model, jnp.float32(x))
            if result is None:
                return
            agree(result, model, end)
            model, state = result[1], end[1]


def under_derivative(node):
    """The gradients with respect to the input and to a parameter, and the state beside them."""
    model, start, x = states.model(node, states.start(0.0)), states.start(0.0), INPUTS[0]
    end = expected(node, start, x)

    @jax.jit
    def gradients(weight, x):
        def run(weight, x):
            return model.replace(parts=model.parts.replace(weight=weight)).call_and_update(x)

        # A closed-over parameter has no derivative in JAX's custom rules.
        argnums = (0, 1) if by_weight else (1,)
        return jax.value_and_grad(run, argnums, has_aux=True)(weight, x)

    by_weight = not holds(node, "custom_jvp", "custom_jvp read", "custom_vjp", "linear_solve")
    result = attempt(node, gradients, model.parts.weight, jnp.float32(x), differentiated=True)
    if result is None:
        return
    agree(result[0], model, end)
    slopes = [derivative(lambda x: oracle.run(node, entered(start), x), x)[1]]
    if by_weight:
        slopes.insert(0, derivative(lambda w: _by_weight(node, start, w, x), start["weight"])[1])
    np.testing.assert_allclose(result[1], slopes, **states.CLOSE)


def _by_weight(node, start, weight, x):
    return oracle.run(node, {**entered(start), "weight": weight}, x)


def under_vmap(node):
    """Each example has a model of its own."""
    starts = [states.start(0.0), states.start(0.4)]
    models = [states.model(node, start) for start in starts]
    ends = [expected(node, start, x) for start, x in zip(starts, INPUTS, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    result = attempt(node, jax.vmap(ox.call_and_update), stacked, jnp.array(INPUTS, jnp.float32))
    if result is not None:
        for i, end in enumerate(ends):
            agree(jax.tree.map(lambda leaf, i=i: leaf[i], result), models[i], end)


def under_scan(node):
    """The model is the carry of a training loop."""
    model, state, ys = states.model(node, states.start(0.0)), states.start(0.0), []
    for x in INPUTS:
        end = expected(node, state, x)
        if end is None:
            break
        ys.append(constant(end[0]))
        state = end[1]

    def body(model, x):
        y, model = ox.call_and_update(model, x)
        return model, y

    result = attempt(node, jax.lax.scan, body, model, jnp.array(INPUTS, jnp.float32))
    if result is not None:
        assert end is not None, "what has no meaning was not refused"
        np.testing.assert_allclose(result[1], ys, **states.CLOSE)
        states.compare(result[0], model, state)


def under_shard_map(node):
    """The whole call on each of two devices, all doing the same."""
    assume(known_to_jax(node, sharded=True))
    model, x = states.model(node, states.start(0.0)), INPUTS[0]
    end = expected(node, states.start(0.0), x)
    mesh, whole = Mesh(np.array(jax.devices()[:2]), ("outer",)), PartitionSpec()
    call = jax.jit(
        jax.shard_map(ox.call_and_update, mesh=mesh, in_specs=(whole, whole), out_specs=whole)
    )
    result = attempt(node, call, model, jnp.float32(x))
    if result is not None:
        agree(result, model, end)


OUTER = {
    "alone": alone,
    "derivative": under_derivative,
    "vmap": under_vmap,
    "scan": under_scan,
    "shard_map": under_shard_map,
}
