"""Stacks of several classes, of stacks, of ensembles, and the uses that are refused (S6, S15)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import Cell, X, step
from hosts import Host, both, close
from jax import lax
from jaxtyping import Array

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
WS = jnp.array([0.5, -0.6, 0.7], jnp.float32)
HS = jnp.array([0.1, 0.2, -0.3], jnp.float32)
W2, H2 = jnp.stack([WS, -WS]), jnp.stack([HS, 2 * HS])


class Counter(ox.Module):
    n: Array = ox.state()

    def call(self, x):
        self.assign(n=self.n + 1)
        return x * self.n.astype(x.dtype)


def layer(h, cell):
    h = cell(h)
    return h, h


def through(m, x):
    return lax.scan(layer, x, m)[0]


def by_hand(ws, hs, x):
    new = []
    for w, h in zip(ws, hs, strict=True):
        x, h = step(w, h, x)
        new.append(h)
    return x, jnp.stack(new) if new else hs


def agrees(inner, program, x, want, end):
    for run in both(ox.call_and_update):
        y, new = run(Host(inner, program), x)
        close(y, want)
        close(new.inner, end)


def test_several_stacks_of_different_classes():
    """One of them is only read."""

    def program(stacks, x):
        def body(h, xs):
            (one, *others), read = xs["called"], xs["read"]
            h = one(h)
            for other in others:
                h = other(h)
            return h + read.n.astype(h.dtype), None

        called, read = stacks
        return lax.scan(body, x, {"called": called, "read": read})[0]

    h, ends = X, []
    for i in range(3):
        h, a = step(WS[i], HS[i], h)
        h, b = step(-WS[i], HS[i], h * (i + 1))
        h = h + 10 * i
        ends.append((WS[i], a, jnp.int32(i + 1), -WS[i], b, jnp.int32(10 * i)))
    called = Cell(WS, HS), Counter(jnp.arange(3)), Cell(-WS, HS)
    end = [jnp.stack(leaves) for leaves in zip(*ends, strict=True)]
    agrees((called, Counter(10 * jnp.arange(3))), program, X, h, end)


@pytest.mark.parametrize("length", [0, 1])
def test_short_stacks(length):
    ws, hs = WS[:length], HS[:length]
    y, new = by_hand(ws, hs, X)
    agrees(Cell(ws, hs), through, X, y, (ws, new))
    ys, new = step(ws, hs, X)
    agrees(Cell(ws, hs), lambda m, x: lax.map(lambda cell: cell(x), m), X, ys, (ws, new))


def test_stack_of_stacks():
    def ours(ws, hs, x):
        y, new = ox.call_and_update(Host(Cell(ws, hs), lambda m, x: lax.scan(outer, x, m)[0]), x)
        return y, new.inner.h

    def outer(h, inner):
        return through(inner, h), None

    def hand(ws, hs, x):
        new = []
        for w, h in zip(ws, hs, strict=True):
            x, h = by_hand(w, h, x)
            new.append(h)
        return x, jnp.stack(new)

    def loss(f):
        return lambda *args: sum(jnp.sum(out**2) for out in f(*args))

    for f in both(ours):
        close(f(W2, H2, X), hand(W2, H2, X))
        got = jax.grad(loss(f), (0, 1, 2))(W2, H2, X)
        close(got, jax.grad(loss(hand), (0, 1, 2))(W2, H2, X))


def scan_of_vmap(m, x):
    return lax.scan(lambda h, cell: (jax.vmap(Cell.__call__)(cell, h), None), x, m)[0]


ENSEMBLES: dict[str, tuple[Any, bool]] = {
    "vmap of scan": (lambda m, x: jax.vmap(through)(m, x), False),
    "vmap of jit of scan": (lambda m, x: jax.vmap(jax.jit(through))(m, x), False),
    "vmap along the second axis": (lambda m, x: jax.vmap(through, (1, 0))(m, x), True),
    "scan of vmap": (scan_of_vmap, True),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_of_stacks(name):
    program, members_last = ENSEMBLES[name]
    ys, hs = map(
        jnp.stack, zip(*[by_hand(w, h, X) for w, h in zip(W2, H2, strict=True)], strict=True)
    )
    ws, start, hs = (v.T if members_last else v for v in (W2, H2, hs))
    agrees(Cell(ws, start), program, X * jnp.ones(2), ys, (ws, hs))


def test_ensembles_as_root_calls():
    ys, hs = jax.vmap(lambda w, h: by_hand(w, h, X))(W2, H2)
    run = jax.vmap(ox.call_and_update, (0, None))
    for f in both(run):
        y, new = f(Host(Cell(W2, H2), through), X)
        close((y, new.inner), (ys, (W2, hs)))


def test_gradient_of_a_stack_inside_a_call():
    """With respect to all slices at once, and to each in the body (S9)."""

    def in_body(h, cell):
        slope = jax.grad(lambda c: c(h) ** 2)(cell)
        return h + slope.w + slope.h, None

    x, new = X, []
    for w, h in zip(WS, HS, strict=True):
        a, b = jax.grad(lambda w, h, x: step(w, h, x)[0] ** 2, (0, 1))(w, h, x)
        new.append(step(w, h, x)[1])
        x = x + a + b
    agrees(Cell(WS, HS), lambda m, x: lax.scan(in_body, x, m)[0], X, x, (WS, jnp.stack(new)))
    whole = jax.grad(lambda w, h: by_hand(w, h, X)[0], (0, 1))(WS, HS)
    end = WS, by_hand(WS, HS, X)[1]
    agrees(Cell(WS, HS), lambda m, x: jax.tree.leaves(jax.grad(through)(m, x)), X, whole, end)


@pytest.mark.parametrize("where", ["of the scan", "in the body"])
def test_custom_vjp(where):
    def custom(f):
        run = jax.custom_vjp(f)
        run.defvjp(lambda m, x: (f(m, x), None), lambda _, bar: (None, 3 * bar))
        return run

    if where == "of the scan":
        program, slope = custom(through), 3
    else:
        call = custom(lambda cell, h: cell(h))
        program, slope = (lambda m, x: lax.scan(lambda h, c: (call(c, h), None), x, m)[0]), 27
    y, new = by_hand(WS, HS, X)
    agrees(Cell(WS, HS), program, X, y, (WS, new))
    for f in both(lambda x: ox.call(Host(Cell(WS, HS), program), x)):
        close(jax.grad(f)(X), jnp.float32(slope))


def test_whole_stack_before_and_after():
    def program(m, x):
        a = jax.vmap(lambda cell: cell(x))(m)
        b = through(m, x)
        m.assign(h=m.h + 1)
        return a, b, through(m, x)

    a, h = step(WS, HS, X)
    b, h = by_hand(WS, h, X)
    c, h = by_hand(WS, h + 1, X)
    agrees(Cell(WS, HS), program, X, (a, b, c), (WS, h))


def test_random_keys_differ_by_iteration():
    class Noisy(ox.Module):
        drop: ox.Module
        w: Array

        def call(self, x):
            return jnp.stack([self.drop(x), self.drop(x)])

    noisy = Noisy(ox.init(nn.Dropout.of(0.5))(KEY, jnp.ones(64)), jnp.ones(4))
    host = Host(noisy, lambda m, x: lax.scan(lambda c, layer: (c, layer(x)), 0, m)[1])
    for run in ox.call, jax.jit(ox.call, static_argnames="training"):
        masks = run(host, jnp.ones(64), training=True, rng=KEY).reshape(8, 64)
        assert len(np.unique(masks, axis=0)) == 8


WHOLE = {
    "read": lambda m: lambda h, cell: (cell(h) + m.h.sum(), None),
    "written": lambda m: lambda h, cell: (m.assign(h=m.h + 1), (cell(h), None))[1],
    "mapped": lambda m: lambda h, cell: (cell(h) + jax.vmap(lambda c: c(h))(m).sum(), None),
    "scanned": lambda m: lambda h, cell: (through(m, cell(h)), None),
    "indexed": lambda m: lambda h, cell: (jax.tree.map(lambda v: v[0], m)(cell(h)), None),
}


@pytest.mark.parametrize("use", WHOLE)
def test_a_whole_stack_beside_its_slices_is_refused(use):
    host = Host(Cell(WS, HS), lambda m, x: lax.scan(WHOLE[use](m), x, m)[0])
    for run in both(ox.call_and_update):
        with pytest.raises(ox.EffectError, match="as a whole and in slices in one body"):
            run(host, X)


def test_a_snapshot_of_the_whole_beside_slices():
    def program(m, x):
        before = ox.snapshot(m)
        return lax.scan(lambda h, cell: (cell(h) + 0 * before.h.sum(), before.h), x, m)

    y, new = by_hand(WS, HS, X)
    agrees(Cell(WS, HS), program, X, (y, jnp.stack([HS] * 3)), (WS, new))


def test_map_in_batches():
    """`lax.map(batch_size=...)` reshapes the stack: refused, unless one batch holds all."""

    def mapped(size):
        return lambda m, x: lax.map(lambda cell: cell(x), m, batch_size=size)

    for run in both(ox.call_and_update):
        for size in 1, 2, 3:
            with pytest.raises(ox.EffectError, match=r"state 'inner.h' is .* sliced or reshaped"):
                run(Host(Cell(WS, HS), mapped(size)), X)
    ys, new = step(WS, HS, X)
    agrees(Cell(WS, HS), mapped(5), X, ys, (WS, new))
