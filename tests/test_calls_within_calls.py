"""Root calls of equal structure that are open at once, or one after the other (S4, S8)."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from gains import X, after, gain
from hosts import Host, both, close
from jax import lax

import oryxstate as ox


def call(m, x):
    return m(x)


def count(module):
    return module.inner.n


STEPS = {
    "eager": ox.call_and_update,
    "jit": jax.jit(ox.call_and_update),
    "checkpoint": jax.checkpoint(ox.call_and_update),
    "cond": lambda m, x: lax.cond(x < 9, ox.call_and_update, lambda m, x: (x, m), m, x),
}


@pytest.mark.parametrize("called", ["never", "before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_another_model_inside_a_call(step, called):
    """Whichever of the two was traced first, each acts on its own state."""
    run, other = STEPS[step], Host(gain(3), call)

    def program(m, x):
        _, first = run(other, x)
        y = m(x)
        _, second = run(first, x)
        return y, count(first), count(second)

    if called == "before":
        close(count(run(other, X)[1]), jnp.float32(4))
    for _ in range(2):
        assert after(gain(100), program) == ((102.0, 4.0, 5.0), 101.0)
        if called == "after":
            close(count(run(other, X)[1]), jnp.float32(4))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_a_member(step):
    """The live member, and its snapshot, as the root of a call of their own."""
    run = STEPS[step]

    def program(m, x):
        _, first = run(Host(m, call), x)
        m(x)
        _, second = run(Host(ox.snapshot(m), call), x)
        _, third = run(m, x)
        return count(first), count(second), third.n

    assert after(gain(100), program) == ((101.0, 102.0, 102.0), 101.0)


@pytest.mark.parametrize("step", STEPS)
def test_an_inner_call_closes_over_the_outer_model(step):
    """Each module acts on its own place, at one path in two calls."""

    def program(m, x):
        def both_of_them(inner, x):
            looped = lax.scan(lambda c, _: (c + m(x), None), x, None, length=2)[0]
            return inner(x) + looped

        y, new = STEPS[step](Host(gain(3), both_of_them), x)
        return y, count(new)

    assert after(gain(100), program) == ((5 + 0.5 + 102 + 103, 4.0), 102.0)


def test_the_caches_of_jax_are_shared_between_calls():
    """A jitted function of a live module is traced once for all root calls, eager or jitted."""
    traces = []

    @jax.jit
    def step(m, x):
        traces.append("jit")
        return m(x)

    def body(carry, _):
        traces.append("scan")
        m, x = carry
        return (m, m(x)), None

    def program(m, x):
        return step(m, x) + lax.scan(body, (m, x), None, length=2)[0][1]

    for run in both(ox.call_and_update):
        for start in 3, 100:
            host = Host(gain(start), program)
            for i in range(3):
                _, host = run(host, X)
                close(count(host), jnp.float32(start + 3 * (i + 1)))
    assert sorted(traces) == ["jit", "scan"]


def test_structures_are_equal_in_all_calls():
    found = []

    def program(m, x):
        found.append(jax.tree.structure(m))
        return m(x)

    for start in 3, 100:
        ox.call(Host(gain(start), program), X)
    assert found[0] == found[1] and hash(found[0]) == hash(found[1])
    assert found[0] != jax.tree.structure(gain(3))


ABSTRACT = {
    "eval_shape": lambda m, x: jax.eval_shape(m, x),
    "eval_shape of an argument": lambda m, x: jax.eval_shape(call, m, x),
    "make_jaxpr": lambda m, x: jax.make_jaxpr(m)(x),
    "make_jaxpr of an argument": lambda m, x: jax.make_jaxpr(call)(m, x),
    "trace": lambda m, x: jax.jit(call).trace(m, x),
    "eval_shape of a gradient": lambda m, x: jax.eval_shape(jax.grad(lambda x: m(x)), x),
}


@pytest.mark.parametrize("name", ABSTRACT)
def test_what_computes_nothing_updates_nothing(name):
    def program(m, x):
        ABSTRACT[name](m, x)
        y = m(x)
        ABSTRACT[name](m, x)
        return y

    assert after(gain(3), program) == (5.0, 4.0)


def test_a_jaxpr_runs_where_it_was_made():
    kept: list[Any] = []

    def program(m, x):
        kept.append(jax.make_jaxpr(lambda x: m(x))(x))
        (y,) = jax.core.eval_jaxpr(kept[-1].jaxpr, kept[-1].consts, x)
        return y

    assert after(gain(3), program) == (5.0, 4.0)

    def later(m, x):
        return jax.core.eval_jaxpr(kept[0].jaxpr, kept[0].consts, x)[0]

    for run in both(ox.call):
        with pytest.raises(ox.EffectError, match="root call that has ended"):
            run(Host(gain(100), later), X)


def test_compiling_ahead_of_time_inside_a_call():
    """Of a live module it is refused; of its snapshot it is a program like any other."""
    with pytest.raises(ox.EffectError, match="where no root call holds it"):
        ox.call(Host(gain(3), lambda m, x: jax.jit(call).lower(m, x).compile()(m, x)), X)

    def program(m, x):
        before = ox.snapshot(m)
        y, new = jax.jit(ox.call_and_update).lower(before, x).compile()(before, x)
        m.assign(n=new.n)
        return y

    y, new = ox.call_and_update(Host(gain(3), program), X)
    assert (y, count(new)) == (5.0, 4.0)


def test_threads_have_calls_of_their_own():
    step, found = jax.jit(call), {}

    def work(start):
        host = Host(gain(start), lambda m, x: step(m, x))
        for _ in range(5):
            _, host = ox.call_and_update(host, X)
        found[start] = float(count(host))

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {100 * i: 100 * i + 5 for i in range(4)}
