"""The time to trace a stateful model, and the number of its equations."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from _measure import report_traces
from _models import WIDTH, equinox, hand, ours, parts

import oryxstate as ox


def _loss(y):
    return (y**2).sum()


def _ours_step(model, x):
    def loss(model, x):
        y, model = ox.call_and_update(model, x)
        return _loss(y), model

    return ox.value_and_grad(loss, has_aux=True)(model, x)


def _equinox_step(arrays, static, state, x):
    def loss(model, state):
        y, state = model(x, state)
        return _loss(y), state

    model = eqx.combine(arrays, static)
    return eqx.filter_value_and_grad(loss, has_aux=True)(model, state)


def _hand_step(params, state, x):
    def loss(params):
        y, new = hand(params, state, x)
        return _loss(y), new

    return jax.value_and_grad(loss, has_aux=True)(params)


def run(blocks: int, rounds: int) -> None:
    """Forward, gradient and update of `blocks` times Dense, BatchNorm, relu."""
    x = jnp.ones((8, WIDTH))
    model, (params, state), (eqx_model, eqx_state) = ours(blocks), parts(blocks), equinox(blocks)
    eqx_arrays, eqx_static = eqx.partition(eqx_model, eqx.is_array)
    steps = {
        "by hand": (_hand_step, (params, state, x)),
        "oryxstate": (_ours_step, (model, x)),
        "equinox": (
            lambda arrays, state, x: _equinox_step(arrays, eqx_static, state, x),
            (eqx_arrays, eqx_state, x),
        ),
    }

    title = f"trace: {blocks} blocks, forward + gradient + update"
    report_traces(title, steps, "by hand", rounds)
