"""Snapshots: plain values of live modules, wherever they are taken (S5)."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import Cell, Foreign, H, Outer, W, X, function, step
from hosts import Host, both, close
from jax import lax

import oryxstate as ox


def agrees(inner, program, want, end=None, x=X):
    for run in both(ox.call_and_update):
        for _ in range(2):
            y, new = run(Host(inner, program), x)
            close(y, want)
            if end is not None:
                close(new.inner, end)


AFTER = step(W, H, X)[1]
MODELS: dict[str, Any] = {
    "module": Cell(W, H),
    "nested": Outer(Cell(W, H)),
    "function": function(W, H),
    "list": [Cell(W, H)],
    "dict of tuples": {"a": (Cell(W, H), None)},
    "Equinox": Foreign(Cell(W, H)),
    "in Equinox in ours": Outer(Foreign(Cell(W, H))),
}


@pytest.mark.parametrize("name", MODELS)
def test_outside_a_call_it_is_the_value(name):
    model = MODELS[name]
    same = ox.snapshot(model)
    assert jax.tree.structure(same) == jax.tree.structure(model)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (same, model)), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_inside_it_has_the_structure_of_the_model(name):
    """It stays as it is when the live module is written later."""
    model = MODELS[name]

    def program(m, x):
        before = ox.snapshot(m)
        assert jax.tree.structure(before) == jax.tree.structure(model)
        call(m, x)
        return jax.tree.leaves(before), jax.tree.leaves(ox.snapshot(m))

    def call(m, x):
        for part in jax.tree.leaves(m, is_leaf=callable):
            part(x)

    start = jax.tree.leaves(model)
    end = [AFTER if leaf is H else leaf for leaf in start]
    agrees(model, program, (start, end), end)


def in_scan(m, x):
    def body(carry, _):
        before = ox.snapshot(m)
        m(x)
        return carry, (before.h, ox.snapshot(m).h)

    return lax.scan(body, 0, None, length=3)[1]


def in_while(m, x):
    def body(carry):
        i, seen = carry
        m(x)
        return i + 1, seen.at[i].set(ox.snapshot(m).h)

    seen = lax.while_loop(lambda c: c[0] < 3, body, (0, jnp.zeros(3)))[1]
    return jnp.stack([H, *seen[:2]]), seen


def carried(m, x):
    """The snapshot is the carry, and has a history of its own."""

    def body(carry, _):
        new = carry.update(x)
        return new, (carry.h, new.h)

    found = lax.scan(body, ox.snapshot(m), None, length=3)[1]
    lax.fori_loop(0, 3, lambda _, c: (m(x), c)[1], 0)
    return found


def in_cond(m, x):
    def one(_):
        before = ox.snapshot(m)
        m(x)
        return before.h, ox.snapshot(m).h

    pairs = [lax.cond(x < 9, one, lambda _: (x, x), i) for i in range(3)]
    return tuple(map(jnp.stack, zip(*pairs, strict=True)))


def in_jit(m, x):
    def one(m):
        before = ox.snapshot(m)
        y = jax.checkpoint(m)(x)
        return before.h + 0 * y

    found = [(jax.jit(one)(m), ox.snapshot(m).h) for _ in range(3)]
    return tuple(map(jnp.stack, zip(*found, strict=True)))


@pytest.mark.parametrize("program", [in_scan, in_while, carried, in_cond, in_jit])
def test_in_loops_and_branches(program):
    hs = [H]
    for _ in range(3):
        hs.append(step(W, hs[-1], X)[1])
    agrees(Cell(W, H), program, (jnp.stack(hs[:3]), jnp.stack(hs[1:])), (W, hs[3]))


WS, HS = jnp.stack([W, -W]), jnp.stack([H, 2 * H])


def test_of_a_mapped_member():
    def program(m, x):
        def member(m):
            before = ox.snapshot(m)
            y = m(x)
            return before.h, y, ox.call(before, x)

        return jax.vmap(member)(m)

    ys, new = step(WS, HS, X)
    agrees(Cell(WS, HS), program, (HS, ys, ys), (WS, new))


ARGUMENTS = {
    "jit": lambda f, m: jax.jit(f)(m),
    "vmap": lambda f, m: jax.vmap(f)(m),
    "map": lambda f, m: lax.map(f, m),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_of_an_argument_after_it_was_written(name):
    def program(m, x):
        def written(m):
            m(x)
            return ox.snapshot(m).h

        return ARGUMENTS[name](written, m)

    new = step(WS, HS, X)[1]
    agrees(Cell(WS, HS), program, new, (WS, new))


def test_under_a_gradient():
    """With respect to an input on which the state depends, and to the snapshot itself."""

    def program(m, x):
        def loss(x):
            m(x)
            return ox.call(ox.snapshot(m), x) + ox.snapshot(m).h ** 2

        slope = jax.grad(loss)(x)
        before = ox.snapshot(m)
        own = jax.grad(lambda c: ox.call(c, x))(before)
        return slope, (own.w, own.h)

    def by_hand(x):
        _, h = step(W, H, x)
        return step(W, h, x)[0] + h**2

    own = jax.grad(lambda w, h: step(w, h, X)[0], (0, 1))(W, AFTER)
    agrees(Cell(W, H), program, (jax.grad(by_hand)(X), own), (W, AFTER))


@pytest.mark.parametrize("make", [Cell, function, lambda w, h: Outer(Cell(w, h))])
def test_trees_of_two_members(make):
    """The average of two members, and the update of a target network towards the online one."""

    def average(pair, x):
        pair[0](x)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *map(ox.snapshot, pair))
        return ox.call(mean, x)

    want = step(0.0 * W, (AFTER - H) / 2, X)[0]
    agrees((make(W, H), make(-W, -H)), average, want)


def test_target_network():
    class Agent(ox.Module):
        online: Cell
        target: dict[str, Any] = ox.state()

        def call(self, x):
            y = self.online(x)
            online = ox.snapshot(self.online).variables()
            self.assign(target=jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, self.target, online))
            return y, ox.call(ox.snapshot(self.online).replace(**self.target), x)

    t = -W, -H
    new = tuple(0.9 * a + 0.1 * b for a, b in zip(t, (W, AFTER), strict=True))
    for run in both(ox.call_and_update):
        (y, z), agent = run(Agent(Cell(W, H), {"w": t[0], "h": t[1]}), X)
        close((y, z), (step(W, H, X)[0], step(*new, X)[0]))
        close(agent, (W, AFTER, *reversed(new)))


def test_nothing_is_written_through_a_snapshot():
    def program(m, x):
        before = ox.snapshot(m)
        first = before.call_and_update(x)[1]
        with pytest.raises(ox.EffectError):
            before(x)
        with pytest.raises(ox.EffectError):
            before.assign(h=x)
        return eqx.tree_at(lambda c: c.w, first, x).w, jax.jit(partial(ox.update, before))(x).h

    agrees(Cell(W, H), program, (X, AFTER), (W, H))


def test_numpy_sees_an_eager_snapshot():
    host = Host(Cell(W, H), lambda m, x: float(np.asarray(ox.snapshot(m).h)))
    assert ox.call(host, X) == float(H)
