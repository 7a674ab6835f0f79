"""Stacked modules as the `xs` of `lax.scan` and `lax.map`: a slice is its layer (S6, S9)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from cells import Cell, Rule, X, function, step
from hosts import Host, both, close
from jax import lax

import oryxstate as ox

WS = jnp.array([0.5, -0.6, 0.7], jnp.float32)
HS = jnp.array([0.1, 0.2, -0.3], jnp.float32)


def by_hand(order=range(3), times=1):
    """`(ws, hs, x) -> (x, ys, hs)`, layer by layer."""

    def run(ws, hs, x):
        new, ys = list(hs), [x] * len(hs)
        for i in order:
            for _ in range(times):
                x, new[i] = step(ws[i], new[i], x)
            ys[i] = x
        return x, jnp.stack(ys), jnp.stack(new)

    return run


forward, backward, twice = by_hand(), by_hand((2, 1, 0)), by_hand(times=2)


def each(ws, hs, x):
    """Every layer gets the same input."""
    ys, hs = step(ws, hs, x)
    return ys.sum(), ys, hs


def layer(h, cell):
    h = cell(h)
    return h, h


def layer_twice(h, cell):
    h = cell(cell(h))
    return h, h


def scanned(body=layer, **options):
    return lambda m, x: lax.scan(body, x, m, **options)


def mapped(m, x, **options):
    ys = lax.map(lambda cell: cell(x), m, **options)
    return ys.sum(), ys


def with_input(h, pair):
    cell, scale = pair
    h = cell(h * scale)
    return h, h


def beside_arrays(m, x):
    return lax.scan(with_input, x, (m, jnp.ones(3)))


def in_dict(m, x):
    return lax.scan(lambda h, xs: layer(h, xs["layers"][0]), x, {"layers": [m], "none": None})


def carried_too(m, x):
    """The slice is handed to a function that is staged of its own."""
    return lax.scan(lambda h, cell: jax.jit(layer)(h, cell), x, m)


def slice_changed(h, cell):
    """Params are cast, or replaced, for one call."""
    h = cell.replace(w=cell.w.astype(jnp.bfloat16).astype(jnp.float32))(h)
    return h, h


def slice_mapped_over(h, cell):
    h = jax.tree.map(lambda leaf: leaf, cell)(h)
    return h, h


def in_cond(h, cell):
    h = lax.cond(h < 9, lambda m, h: m(h), lambda m, h: h, cell, h)
    return h, h


def in_cond_closed_over(h, cell):
    h = lax.cond(h < 9, lambda: cell(h), lambda: h)
    return h, h


def in_while(h, cell):
    h = lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, cell(c[1])), (0, h))[1]
    return h, h


def in_fori(h, cell):
    h = lax.fori_loop(0, 2, lambda _, c: (c[0], c[0](c[1])), (cell, h))[1]
    return h, h


def in_scan(h, cell):
    h = lax.scan(lambda h, _: (cell(h), None), h, None, length=2)[0]
    return h, h


def in_vmap(h, cell):
    h = jax.vmap(lambda _: cell(h))(jnp.ones(2))[0]
    return h, h


def in_custom_vjp(h, cell):
    run = jax.custom_vjp(lambda h: cell(h))
    run.defvjp(lambda h: jax.vjp(cell, h), lambda pull, bar: pull(bar))
    return layer(h, run)


def in_custom_jvp(h, cell):
    run = jax.custom_jvp(lambda h: cell(h))
    run.defjvp(lambda primals, tangents: jax.jvp(cell, primals, tangents))
    return layer(h, run)


def explicit(h, cell):
    h, new = cell.call_and_update(h)
    cell.assign(h=new.h)
    return h, h


def whole_in(wrap):
    return lambda m, x: wrap(scanned())(m, x)


def condition(f):
    return lambda m, x: lax.cond(x < 9, f, lambda m, x: (x, jnp.ones(3)), m, x)


def loop(f):
    def run(m, x):
        def body(carry):
            i, m, (x, _) = carry
            return i + 1, m, f(m, x)

        return lax.while_loop(lambda c: c[0] < 1, body, (0, m, (x, jnp.ones(3))))[2]

    return run


def in_outer_scan(f):
    return lambda m, x: lax.scan(lambda c, _: (f(m, c[0]), None), (x, jnp.ones(3)), None, length=1)[
        0
    ]


def custom(f):
    run = jax.custom_vjp(f)
    run.defvjp(lambda m, x: (f(m, x), x), lambda x, bar: (None, bar[0]))
    return run


PROGRAMS: dict[str, tuple[Any, Any]] = {
    "scan": (scanned(), forward),
    "reverse": (scanned(reverse=True), backward),
    "unroll": (scanned(unroll=2), forward),
    "unroll all": (scanned(unroll=True), forward),
    "checkpoint of body": (scanned(jax.checkpoint(layer)), forward),
    "nothing saved": (
        scanned(jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable)),
        forward,
    ),
    "jit of body": (scanned(jax.jit(layer)), forward),
    "map": (mapped, each),
    "beside arrays": (beside_arrays, forward),
    "in a dict": (in_dict, forward),
    "twice": (scanned(layer_twice), twice),
    "jit in body": (carried_too, forward),
    "tree.map in body": (scanned(slice_mapped_over), forward),
    "cond in body": (scanned(in_cond), forward),
    "cond that closes over": (scanned(in_cond_closed_over), forward),
    "while in body": (scanned(in_while), twice),
    "fori in body": (scanned(in_fori), twice),
    "scan in body": (scanned(in_scan), twice),
    "vmap in body": (scanned(in_vmap), forward),
    "explicit in body": (scanned(explicit), forward),
    "in jit": (whole_in(jax.jit), forward),
    "in checkpoint": (whole_in(jax.checkpoint), forward),
    "in cond": (whole_in(condition), forward),
    "in while": (whole_in(loop), forward),
    "in scan": (whole_in(in_outer_scan), forward),
}
FORWARD_ONLY = ["while in body", "in while"]
MAKES = {"call": Cell, "call_and_update": Rule, "function": jax.vmap(function)}


def run_of(program, make):
    def run(ws, hs, x):
        (h, ys), new = ox.call_and_update(Host(make(ws, hs), PROGRAMS[program][0]), x)
        return h, ys, next(v for k, v in ox.named_leaves(new).items() if k.strip("']")[-1] == "h")

    return run


@pytest.mark.parametrize("program", PROGRAMS)
def test_state_comes_back_stacked(program):
    for run in both(run_of(program, Cell)):
        hs = want = HS
        for _ in range(2):
            h, ys, hs = run(WS, hs, X)
            *outputs, want = PROGRAMS[program][1](WS, want, X)
            close((h, ys, hs), (*outputs, want))


@pytest.mark.parametrize("program", ["scan", "twice", "in jit", "map", "cond in body"])
@pytest.mark.parametrize("make", ["call_and_update", "function"])
def test_of_other_modules(program, make):
    for run in both(run_of(program, MAKES[make])):
        close(run(WS, HS, X), PROGRAMS[program][1](WS, HS, X))


def total(f):
    return lambda *args: sum(jnp.sum(out**2) for out in f(*args))


@pytest.mark.parametrize("program", PROGRAMS)
def test_derivatives_with_respect_to_params_state_and_input(program):
    ours, hand = total(run_of(program, Cell)), total(PROGRAMS[program][1])
    args = WS, HS, X
    push = partial(jax.jvp, primals=args, tangents=(HS, WS, 2 * X))
    for f in both(ours):
        close(push(f), push(hand))
        if program not in FORWARD_ONLY:
            close(jax.grad(f, (0, 1, 2))(*args), jax.grad(hand, (0, 1, 2))(*args))
