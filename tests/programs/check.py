"""The checks of a program: alone, and under an outer transformation of the whole call."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume
from jax.sharding import Mesh, PartitionSpec
from programs import check_derivatives, states
from programs.dual import constant
from programs.expected import INPUTS, agree, expected
from programs.refusals import attempt, known_to_jax
from programs.starts import start

import oryxstate as ox


def alone(node):
    """Eagerly and jitted, and each called again with the state that the first call left."""
    for call in (ox.call_and_update, jax.jit(ox.call_and_update)):
        model, state = states.model(node, start(0.0)), start(0.0)
        for x in INPUTS:
            end = expected(node, state, x)
            result = attempt(node, call, model, jnp.float32(x))
            if result is None:
                return
            agree(result, model, end)
            model, state = result[1], end[1]


def under_vmap(node):
    """Each example has a model of its own."""
    starts = [start(0.0), start(0.4)]
    models = [states.model(node, start) for start in starts]
    ends = [expected(node, start, x) for start, x in zip(starts, INPUTS, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    result = attempt(node, jax.vmap(ox.call_and_update), stacked, jnp.array(INPUTS, jnp.float32))
    if result is not None:
        for i, end in enumerate(ends):
            agree(jax.tree.map(lambda leaf, i=i: leaf[i], result), models[i], end)


def under_scan(node):
    """The model is the carry of a training loop."""
    model, state, ys = states.model(node, start(0.0)), start(0.0), []
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
    model, x = states.model(node, start(0.0)), INPUTS[0]
    end = expected(node, start(0.0), x)
    mesh, whole = Mesh(np.array(jax.devices()[:2]), ("outer",)), PartitionSpec()
    call = jax.jit(
        jax.shard_map(ox.call_and_update, mesh=mesh, in_specs=(whole, whole), out_specs=whole)
    )
    result = attempt(node, call, model, jnp.float32(x))
    if result is not None:
        agree(result, model, end)


OUTER = {
    "alone": alone,
    "derivative": check_derivatives.by_input_and_parameter,
    "time": check_derivatives.through_time,
    "vmap": under_vmap,
    "scan": under_scan,
    "shard_map": under_shard_map,
}
