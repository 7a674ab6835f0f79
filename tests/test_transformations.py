"""Each update exactly once, through every transformation (S6)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import INPUTS, Host, both, close, leaves_of
from threaded import BODIES, Body
from transformations import ROWS

import oryxstate as ox


def argument(row: str, body: Body) -> Host:
    """The module goes through the transformation as an argument."""
    return Host(body.make(), ROWS[row].body(body).step)


def closed_over(row: str, body: Body) -> Host:
    """The transformed function closes over the module."""

    def step(m, h):
        closed = body._replace(step=lambda _, h: body.step(m, h), peek=lambda _: body.peek(m))
        return ROWS[row].body(closed).step((), h)

    return Host(body.make(), step)


@functools.cache
def by_hand(row: str, body: str) -> list[tuple[Any, tuple]]:
    """Outputs and states of two calls in a row."""
    step = ROWS[row].body(BODIES[body]).hand
    s, ends = leaves_of(BODIES[body]), []
    for h in INPUTS:
        h, s = step(s, jnp.float32(h))
        ends.append((h, s))
    return ends


def check(host: Host, ends: list[tuple[Any, tuple]], runs: Any = None) -> None:
    before = jax.tree.map(np.asarray, jax.tree.leaves(host))
    for run in runs or both(ox.call_and_update):
        new = host
        for h, (y, s) in zip(INPUTS, ends, strict=True):
            out, new = run(new, jnp.float32(h))
            close(out, y)
            close(new, s)
            assert jax.tree.structure(new) == jax.tree.structure(host)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.leaves(host))


# Every row with every body as an argument; closed over, each with half of the others.
PLACED = [
    pytest.param(row, body, made, id=f"{row}-{body}-{made.__name__}")
    for i, row in enumerate(ROWS)
    for j, body in enumerate(BODIES)
    for made in ([argument, closed_over] if (i + j) % 2 else [argument])
]


@pytest.mark.parametrize(("row", "body", "made"), PLACED)
def test_state_is_as_threaded_by_hand(row, body, made):
    host = made(row, BODIES[body])
    if ROWS[row].maps and BODIES[body].depends:
        for run in both(ox.call_and_update):
            with pytest.raises(ox.EffectError, match="depends on the mapped axis"):
                run(host, jnp.float32(0.3))
    else:
        # Eagerly with functions that are the same each time, so that JAX caches their bodies.
        check(host, by_hand(row, body), None if made is argument else both(ox.call_and_update)[1:])


# Nested -------------------------------------------------------------------------------------------

SHARDED = "shard_map on 2 devices"
NESTABLE = [
    "jit",
    "filter_jit",
    "scan",
    "fori_loop",
    "while_loop",
    "cond",
    "switch",
    "checkpoint",
    "grad",
    "jvp",
    "vjp",
    "linearize",
    "custom_jvp",
    "custom_vjp",
    "vmap with pmean",
    SHARDED,
]
REFUSED_BY_JAX = [(SHARDED, SHARDED), (SHARDED, "vmap with pmean")]
PAIRS = [
    (outer, inner)
    for outer in NESTABLE
    for inner in NESTABLE
    if ROWS[outer].needs <= ROWS[inner].modes and (outer, inner) not in REFUSED_BY_JAX
]
TRIPLES = [
    ("jit", "scan", "checkpoint"),
    ("grad", "scan", "cond"),
    ("grad", "checkpoint", "scan"),
    ("jvp", "while_loop", "jit"),
    ("scan", "grad", "jit"),
    ("jit", "grad", "jit"),
    ("checkpoint", "scan", "grad"),
    ("scan", "switch", "custom_vjp"),
    ("vmap with pmean", "while_loop", "cond"),
    (SHARDED, "scan", "grad"),
    ("hessian", "scan", "checkpoint"),
    ("scan", "scan", "scan"),
]


@pytest.mark.parametrize("rows", [*PAIRS, *TRIPLES], ids=" of ".join)
def test_nested(rows):
    body = BODIES["read and write h"]
    for row in reversed(rows):
        body = ROWS[row].body(body)
    s, ends = leaves_of(body), []
    for h in INPUTS:
        h, s = body.hand(s, jnp.float32(h))
        ends.append((h, s))
    runs = both(ox.call_and_update)
    check(Host(body.make(), body.step), ends, runs if len(rows) > 2 else runs[1:])
