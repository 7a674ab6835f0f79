"""Is the program that JAX sees the one that would have been written by hand?"""

from __future__ import annotations

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hosts import START, H, Host
from jax import lax
from jax.extend.core import jaxprs_in_params, primitives
from threaded import Acc, acc, made

import oryxstate as ox


def counted(jaxpr) -> Counter:
    """How often each primitive stands in a program, with all that is inside."""
    found = Counter()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found[str(eqn.primitive)] += 1
        for inner in jaxprs_in_params(eqn.params):
            found += counted(inner)
    return found


def entered(s):
    """State that enters a root call is a constant for gradients."""
    return s[0], lax.stop_gradient(s[1]), s[2]


def call(m, h):
    return m(h)


def turn(carry, _):
    m, h = carry
    return (m, m(h)), None


def hand_turn(carry, _):
    return acc(*carry)[::-1], None


PROGRAMS = {
    "straight": (lambda m, h: m(m(h)), lambda s, h: acc(*acc(s, h)[::-1])),
    "jit": (jax.jit(call), jax.jit(acc)),
    "scan": (
        lambda m, h: lax.scan(turn, (m, h), None, length=3)[0][1],
        lambda s, h: lax.scan(hand_turn, (s, h), None, length=3)[0][::-1],
    ),
    "scan of jit": (
        lambda m, h: lax.scan(lambda c, _: (jax.jit(m)(c), None), h, None, length=3)[0],
        lambda s, h: lax.scan(lambda c, _: (jax.jit(acc)(*c)[::-1], None), (s, h), None, length=3)[
            0
        ][::-1],
    ),
    "cond": (
        lambda m, h: lax.cond(h > 0, m, lambda h: h, h),
        lambda s, h: lax.cond(h > 0, acc, lambda s, h: (h, s), s, h),
    ),
    "while_loop": (
        lambda m, h: lax.while_loop(lambda h: h < 1, m, h),
        lambda s, h: lax.while_loop(lambda c: c[0] < 1, lambda c: acc(*c[::-1]), (h, s)),
    ),
    "checkpoint": (jax.checkpoint(call), jax.checkpoint(acc)),
    "grad": (
        lambda m, h: jax.grad(m)(h),
        lambda s, h: jax.grad(partial(acc, s), has_aux=True)(h),
    ),
}
# The public `lax.switch`, by which a stateful branch is rebuilt, makes sure of its index.
EXTRA = {"cond": Counter(clamp=1)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equations_are_those_by_hand(name):
    ours, hand = PROGRAMS[name]
    host = Host(made(Acc), ours)
    got = counted(jax.make_jaxpr(ox.call_and_update)(host, H))
    want = counted(jax.make_jaxpr(lambda s, h: hand(entered(s), h))(START, H))
    assert got == want + EXTRA.get(name, Counter())
    assert got["cos"] and not {"variable", "assign"} & set(got)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "while_loop"])
def test_gradient_has_the_equations_by_hand(name):
    ours, hand = PROGRAMS[name]

    def loss(scale, h):
        m = made(Acc).replace(scale=scale)
        y, new = ox.call_and_update(Host(m, ours), h)
        return y, jax.tree.leaves(new)

    def hand_loss(scale, h):
        y, s = hand(entered((scale, *START[1:])), h)
        return y, list(s)

    programs = [jax.make_jaxpr(jax.value_and_grad(f, has_aux=True)) for f in (loss, hand_loss)]
    got, want = (counted(program(START[0], H)) for program in programs)
    assert got == want + EXTRA.get(name, Counter())


def plain_turn(h, x):
    return jnp.sin(h) + x, h


def test_a_loop_without_state_is_left_alone():
    """The equation holds the very jaxpr that JAX has cached for the body."""

    def program(h):
        return lax.scan(plain_turn, h, jnp.arange(3.0))

    def step(m, h):
        return program(m(h))

    bodies = []
    for f in (program, partial(ox.call, Host(made(Acc), step))):
        eqns = jax.make_jaxpr(f)(H).eqns
        (eqn,) = (e for e in eqns if e.primitive is primitives.scan_p)
        bodies.append(eqn.params["jaxpr"])
    assert bodies[0] is bodies[1]


def test_what_holds_no_state_costs_no_equation():
    def plain(w, x):
        return jnp.sin(w * x)

    class Dense(ox.Module):
        w: jax.Array = ox.param()

        def call(self, x):
            return jax.vmap(lambda x: plain(self.w, x))(x)

    x = jnp.ones(3)
    got = jax.make_jaxpr(ox.call_and_update)(Dense(H), x)
    assert str(got.jaxpr.eqns) == str(jax.make_jaxpr(jax.vmap(plain, (None, 0)))(H, x).jaxpr.eqns)
