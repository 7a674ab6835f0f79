"""Reads that see writes, and modules that travel and keep their place (S4, S5, S8)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hosts import START, H, close, run
from jax import lax
from threaded import Acc, Rule, acc, made

import oryxstate as ox


def calls(count):
    s, hs = START, []
    for _ in range(count):
        h, s = acc(s, H)
        hs.append(h)
    return hs, s


# Reads see writes ---------------------------------------------------------------------------------


def test_read_after_assign():
    def step(m, h):
        before = m.total
        m.assign(total=h)
        between = m.total
        m.assign(total=m.total + between, count=m.count * 2)
        return before, between, m.total, m.count

    seen, new = run(step)
    close(seen, (START[1], H, 2 * H, jnp.int32(6)))
    close(new, (START[0], 2 * H, jnp.int32(6)))


def test_read_after_call_of_a_submodule():
    def step(m, h):
        m(h)
        first = m.count
        jax.jit(lambda: m(h))()
        second = m.count
        lax.fori_loop(0, 4, lambda _, c: (m(c), c)[1], h)
        return first, second, m.count

    seen, new = run(step)
    close(seen, [START[2] + 1, START[2] + 2, START[2] + 6])
    close(new, calls(6)[1])


def test_read_in_the_next_iteration():
    def step(m, h):
        def body(carry, _):
            m.assign(total=m.total + carry)
            return m.total, m.total

        return lax.scan(body, h, None, length=3)[1]

    t0, want = START[1], []
    total, carry = t0, H
    for _ in range(3):
        total = carry = total + carry
        want.append(total)
    seen, new = run(step)
    close(seen, jnp.stack(want))
    close(new, (START[0], want[-1], START[2]))


def test_every_write_counts_once_in_order():
    def step(m, h):
        y1 = m(h)
        y2 = lax.cond(h > 0, lambda: m(h), lambda: h)
        y3 = jax.jit(m)(h)
        (y4, y5) = lax.scan(lambda c, _: (c, m(h)), h, None, length=2)[1]
        return y1, y2, y3, y4, y5

    hs, s = calls(5)
    seen, new = run(step)
    close(seen, hs)
    close(new, s)


def test_two_names_of_one_live_module():
    """Reached by attributes twice, it is one place; two fields with one module are two."""

    def step(host, h):
        one, other = host[0], host[0]
        one(h)
        return other.count, host[1].count

    module = made(Acc)
    seen, new = run(step, [module, module])
    close(seen, [START[2] + 1, START[2]])
    close(new, [*calls(1)[1], *START])


# Values -------------------------------------------------------------------------------------------


def test_flattening_gives_current_values():
    def step(m, h):
        m(h)
        copy = jax.tree.map(lambda x: x, m)
        return (
            jax.tree.leaves(m),
            copy.total,
            m.variables(),
            m.flatten()[0],
            m.replace(scale=h).total,
        )

    s = calls(1)[1]
    seen, _ = run(step)
    close(seen, [s, s[1], {"scale": s[0], "total": s[1], "count": s[2]}, s, s[1]])


CROSSINGS = {
    "tree.map": lambda m: jax.tree.map(lambda x: x, m),
    "flatten and unflatten": lambda m: jax.tree.unflatten(
        jax.tree.structure(m), jax.tree.leaves(m)
    ),
    "jit": lambda m: jax.jit(lambda m: m)(m),
    "eqx.filter_jit": lambda m: eqx.filter_jit(lambda m: m)(m),
    "partition": lambda m: eqx.combine(*eqx.partition(m, eqx.is_inexact_array)),
    "tree_at": lambda m: eqx.tree_at(lambda m: m.scale, m, m.scale * 1),
    "scan": lambda m: lax.scan(lambda m, _: (m, None), m, None, length=2)[0],
    "vmap": lambda m: jax.vmap(lambda m, _: m, (None, 0), None)(m, jnp.zeros(2)),
}


@pytest.mark.parametrize("crossing", CROSSINGS.values(), ids=CROSSINGS)
def test_a_value_acts_on_its_place(crossing):
    """Its fields are what it carries, but calls and assigns start from the current state."""

    def step(m, h):
        value = crossing(m)
        m(h)
        y = value(h)
        stale = value.total
        value.assign(count=m.count + 10)
        return y, stale, m.count

    hs, s = calls(2)
    seen, new = run(step)
    close(seen, [hs[1], START[1], s[2] + 10])
    close(new, (*s[:2], s[2] + 10))


def test_other_params_with_the_state_of_the_place():
    """`replace` on a live module: the new params count, the state stays at its place."""
    seen, new = run(lambda m, h: m.replace(scale=2 * m.scale)(h))
    y, s = acc((2 * START[0], *START[1:]), H)
    close(seen, y)
    close(new, (START[0], *s[1:]))


@pytest.mark.parametrize("kind", [Acc, Rule])
def test_explicit_call_and_update_is_pure(kind):
    def step(m, h):
        y, new = m.call_and_update(h)
        again, newer = new.call_and_update(h)
        inside = jax.jit(lambda m: m.call_and_update(h)[1].total)(m)
        looped = lax.scan(lambda m, _: ox.call_and_update(m, h)[::-1], m, None, length=2)[0]
        return y, new.total, again, newer.count, inside, looped.count, m.count

    hs, s = calls(2)
    seen, new = run(step, made(kind))
    close(seen, [hs[0], calls(1)[1][1], hs[1], s[2], calls(1)[1][1], s[2], START[2]])
    close(new, START)


def test_explicit_call_of_one_member_inside_a_call():
    """A root inside a root, whose updates the author assigns."""

    def step(m, h):
        m(h)
        y, new = m.call_and_update(h)
        m.assign(total=new.total)
        return y

    hs, s = calls(2)
    seen, new = run(step)
    close(seen, hs[1])
    close(new, (*s[:2], START[2] + 1))


def test_call_outside_drops_the_update():
    module = made(Acc)
    for call in (module, jax.jit(lambda m, h: m(h)).__get__(module), ox.call.__get__(module)):
        for _ in range(2):
            close(call(H), calls(1)[0][0])
    close(module, START)


def test_a_root_returns_modules_as_plain_values():
    kept = run(lambda m, h: m)[0]
    assert kept.call_and_update(H)[1].count == START[2] + 1
    assert jax.tree.structure(kept) == jax.tree.structure(made(Acc))
