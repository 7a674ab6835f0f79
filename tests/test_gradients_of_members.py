"""Gradients with respect to a live module, its state included, taken inside a call (S5, S9)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import pytest
from cells import Cell, H, Rule, W, X, function, step
from hosts import Host, both, close
from jax import lax

import oryxstate as ox


def twice(w, h, x):
    y, h = step(w, h, x)
    z, h = step(w, h, x + y)
    return y * z, h


def call(m, x):
    return m(x)


def call_twice(m, x):
    y = m(x)
    return y * m(x + y)


def read(m, x):
    """The module came as a value: its fields stay what it carries."""
    y = m.h * x
    return y + m(x) + m.h * m.w


def hand_read(w, h, x):
    y, new = step(w, h, x)
    return h * x + y + h * w, new


def overwrite(m, x):
    m.assign(h=x * m.h)
    return m(x)


def hand_overwrite(w, h, x):
    return step(w, x * h, x)


def in_jit(m, x):
    return jax.jit(call)(m, x) * jax.jit(lambda: m(x))()


def hand_twice_same(w, h, x):
    y, h = step(w, h, x)
    z, h = step(w, h, x)
    return y * z, h


def in_checkpoint(m, x):
    return jax.checkpoint(call)(m, x) * jax.checkpoint(lambda: m(x))()


def in_scan(m, x):
    return lax.scan(lambda c, _: ((c[0], c[1] + c[0](x)), None), (m, x), None, length=2)[0][1]


def in_scan_closed_over(m, x):
    return lax.scan(lambda c, _: (c + m(x), None), x, None, length=2)[0]


def hand_scan(w, h, x):
    y, h = step(w, h, x)
    z, h = step(w, h, x)
    return x + y + z, h


def in_cond(m, x):
    return lax.cond(x < 5, call_twice, call, m, x)


def explicit(m, x):
    """A pure call, of which only the derivative reaches the module; then an update."""
    y, new = m.call_and_update(x)
    z, _ = new.call_and_update(x + y)
    m.assign(h=new.h)
    return y * z


def hand_explicit(w, h, x):
    return twice(w, h, x)[0], step(w, h, x)[1]


def of_snapshot(m, x):
    y, new = ox.snapshot(m).call_and_update(x)
    return y * ox.call(new, x + y) + 0 * m(x)


def hand_snapshot(w, h, x):
    return twice(w, h, x)[0], step(w, h, x)[1]


PROGRAMS: dict[str, tuple[Any, Any]] = {
    "call": (call, step),
    "two calls": (call_twice, twice),
    "read": (read, hand_read),
    "overwrite": (overwrite, hand_overwrite),
    "jit": (in_jit, hand_twice_same),
    "checkpoint": (in_checkpoint, hand_twice_same),
    "scan": (in_scan, hand_scan),
    "scan that closes over": (in_scan_closed_over, hand_scan),
    "cond": (in_cond, twice),
    "explicit": (explicit, hand_explicit),
    "snapshot": (of_snapshot, hand_snapshot),
}


def leaves(f):
    """With respect to the leaves of the module, in the order of its fields."""
    return lambda m, x: jax.tree.leaves(f(m, x))


def pushed(f):
    def run(m, x):
        dot = jax.tree.map(lambda v: 2 * v, m)
        return jax.jvp(f, (m, x), (dot, x))[1]

    return run


def hand_pushed(f):
    return lambda w, h, x: jax.jvp(lambda *a: f(*a)[0], (w, h, x), (2 * w, 2 * h, x))[1]


def of(transform, *args):
    def ours(f):
        return leaves(transform(f, *args))

    def hand(f):
        return transform(lambda w, h, x: f(w, h, x)[0], (0, 1))

    return ours, hand


def first_of(f):
    """The module is what `jax.vjp` is taken of; the input is closed over."""
    return lambda m, x: jax.tree.leaves(jax.vjp(lambda m: f(m, x), m)[1](x))


def hand_first_of(f):
    return lambda w, h, x: jax.vjp(lambda w, h: f(w, h, x)[0], w, h)[1](x)


DERIVES: dict[str, tuple[Any, Any]] = {
    "grad": of(jax.grad),
    "jacfwd": of(jax.jacfwd),
    "grad of jit": (lambda f: leaves(jax.grad(jax.jit(f))), of(jax.grad)[1]),
    "jit of grad": (lambda f: leaves(jax.jit(jax.grad(f))), of(jax.grad)[1]),
    "grad of checkpoint": (lambda f: leaves(jax.grad(jax.checkpoint(f))), of(jax.grad)[1]),
    "filter_grad": (lambda f: leaves(eqx.filter_grad(f)), of(jax.grad)[1]),
    "jvp": (pushed, hand_pushed),
    "vjp": (first_of, hand_first_of),
    "hessian": of(jax.hessian),
}


def check(make, program, derive):
    f, hand = PROGRAMS[program]
    ours, by_hand = DERIVES[derive]
    host, s = Host(make(W, H), ours(f)), H
    new = [host, host]
    for x in X, 2 * X:
        want = by_hand(hand)(W, s, x)
        s = hand(W, s, x)[1]
        for i, run in enumerate(both(ox.call_and_update)):
            got, new[i] = run(new[i], x)
            close(got, want)
            close(new[i], (W, s))


SECOND = ["call", "overwrite", "scan", "explicit"]  # those of which the hessian is taken


@pytest.mark.parametrize("derive", DERIVES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_gradient_with_respect_to_a_module(program, derive):
    if derive != "hessian" or program in SECOND:
        check(Cell, program, derive)


@pytest.mark.parametrize("make", [Rule, function])
@pytest.mark.parametrize("program", ["call", "two calls", "scan", "jit"])
def test_of_other_modules(program, make):
    check(make, program, "grad")


def test_after_a_write_in_the_same_transformation():
    """The state that the module carries was replaced: nothing is left of its derivative."""

    def inner(m, x):
        def loss(value, x):
            m.assign(h=x)  # the same place, reached from outside
            return value(x)

        return jax.tree.leaves(jax.grad(loss, (0, 1))(m, x))

    want = jax.grad(lambda w, h, x: step(w, x, x)[0], (0, 1, 2))(W, H, X)
    for run in both(ox.call):
        close(run(Host(Cell(W, H), inner), X), want)


def test_after_a_write_before_the_transformation():
    def inner(m, x):
        value = jax.tree.map(lambda v: v, m)  # carries the state of before
        m(x)
        return jax.tree.leaves(jax.grad(call)(value, x)), value.h

    _, h = step(W, H, X)
    want = jax.grad(lambda w, h: step(w, h, X)[0], (0, 1))(W, h)
    for run in both(ox.call):
        close(run(Host(Cell(W, H), inner), X), (want, H))


def test_with_respect_to_two_modules_and_what_holds_them():
    def inner(ms, x):
        by_pair = jax.grad(lambda pair: pair[0](pair[1](x)))(ms)
        one, other = jax.grad(lambda a, b: b(a(x)), (0, 1))(*ms)
        return jax.tree.leaves((by_pair, one, other))

    def hand(w, h, v, k):
        y, k = step(v, k, X)
        z, h = step(w, h, y)
        return z, (w, h, v, k)

    start = W, H, 2 * W, -H
    first, s = jax.grad(hand, (0, 1, 2, 3), has_aux=True)(*start)
    second = jax.grad(lambda w, h, v, k: hand(v, k, w, h)[0], (0, 1, 2, 3))(*s)
    for run in both(ox.call):
        got = run(Host((Cell(*start[:2]), Cell(*start[2:])), inner), X)
        close(got, (*first, *second))
