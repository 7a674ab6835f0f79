"""A root call is a pure function, whatever JAX does with it as a whole (S3, S6, S9)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hosts import INPUTS, Host, both, close, leaves_of
from jax import lax
from threaded import BODIES, stacked
from transformations import ROWS

import oryxstate as ox

RICH = BODIES["two modules"]
UNMAPPED = [name for name, row in ROWS.items() if not row.maps]
CUSTOM = "custom_jvp", "custom_vjp"  # whose rules say nothing of the state that they read
BATCHING = [name for name in UNMAPPED if ROWS[name].batches]


@pytest.mark.parametrize("row", BATCHING)
def test_root_call_under_vmap(row):
    body = ROWS[row].body(RICH)
    host = Host(RICH.make(), body.step)
    members = stacked(host, jax.tree.map(lambda x: x + 1, host))
    hs = jnp.array([0.3, -0.7])
    ends = [body.hand(tuple(x[i] for x in jax.tree.leaves(members)), hs[i]) for i in range(2)]
    close(jax.jit(jax.vmap(ox.call_and_update))(members, hs), stacked(*ends))
    ends = [body.hand(leaves_of(RICH), h) for h in hs]
    close(jax.jit(jax.vmap(ox.call_and_update, (None, 0)))(host, hs), stacked(*ends))


@pytest.mark.parametrize("row", UNMAPPED)
def test_root_call_under_scan(row):
    body = ROWS[row].body(RICH)

    def turn(host, h):
        return ox.call_and_update(host, h)[::-1]

    s, ys = leaves_of(RICH), []
    for h in INPUTS:
        y, s = body.hand(s, jnp.float32(h))
        ys.append(y)
    close(lax.scan(turn, Host(RICH.make(), body.step), jnp.array(INPUTS)), (s, jnp.stack(ys)))


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
@pytest.mark.parametrize("row", UNMAPPED)
def test_root_call_under_differentiation(row, mode):
    """With respect to input, params and state, through two calls and the state between (S9)."""
    body, h = ROWS[row].body(RICH), jnp.float32(0.3)
    if mode not in ROWS[row].modes:
        mode = "none"
    host = Host(RICH.make(), body.step)
    differentiable, rest = eqx.partition(host, eqx.is_inexact_array)
    leaves = jax.tree.leaves(host)

    def ours(differentiable, h):
        y, new = ox.call_and_update(eqx.combine(differentiable, rest), h)
        return y + ox.call(new, y), jax.tree.leaves(new)

    def hand(differentiable, h):
        given = iter(jax.tree.leaves(differentiable))
        s = tuple(next(given) if eqx.is_inexact_array(x) else x for x in leaves)
        y, new = body.hand(s, h)
        return y + body.hand(tuple(new), y)[0], list(new)

    derive = {"jvp": forward, "vjp": backward, "none": lambda f, *args: f(*args)}[mode]
    runs = both(lambda params, h: derive(ours, params, h))
    if mode in ("jvp", "vjp") and row in CUSTOM:
        for run in runs:
            with pytest.raises(ox.EffectError, match=f"the rule of `{row}` says nothing"):
                run(differentiable, h)
        return
    for run in runs[1:] if "shard_map" in row else runs:  # eager shard_map compiles each operation
        close(run(differentiable, h), derive(hand, differentiable, h))


def forward(f, params, h):
    tangents = jax.tree.map(jnp.cos, params), jnp.float32(2)
    (y, new), (dot, _) = jax.jvp(lambda p, h: f(p, h), (params, h), tangents)
    return y, dot, new


def backward(f, params, h):
    return jax.value_and_grad(f, argnums=(0, 1), has_aux=True)(params, h)
