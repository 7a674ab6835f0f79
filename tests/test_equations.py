"""The programs that JAX sees, compared with those written by hand."""

from __future__ import annotations

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equations import counted
from hosts import START, H, Host
from jax import lax
from jax.extend.core import primitives
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threaded import Acc, acc, made

import oryxstate as ox


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
    want = counted(jax.make_jaxpr(lambda s, h: hand(s, h))(START, H))
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
        y, s = hand((scale, *START[1:]), h)
        return y, list(s)

    programs = [jax.make_jaxpr(jax.value_and_grad(f, has_aux=True)) for f in (loss, hand_loss)]
    got, want = (counted(program(START[0], H)) for program in programs)
    assert got == want + EXTRA.get(name, Counter())


MESH = Mesh(np.array(jax.devices()[:2]), ("d",))
WHOLE = NamedSharding(MESH, PartitionSpec())
SAVED = jax.checkpoint_policies.dots_saveable


def turns(step, **options):
    return lambda s, h: lax.scan(lambda h, _: (step(s, h)[0], None), h, None, 3, **options)


def on_devices(step, **options):
    specs = {"in_specs": PartitionSpec(), "out_specs": PartitionSpec()}
    return jax.shard_map(step, mesh=MESH, **specs, **options)


# How a function is transformed, and which parameters of which equation must say so.
TOLD = {
    "inline": (partial(jax.jit, inline=True), "jit", ["inline"]),
    "not inline": (jax.jit, "jit", ["inline", "keep_unused"]),
    "name": (lambda step: jax.jit(named(step)), "jit", ["name"]),
    "keep_unused": (partial(jax.jit, keep_unused=True), "jit", ["keep_unused"]),
    "in_shardings": (partial(jax.jit, in_shardings=(None, WHOLE)), "jit", ["in_shardings"]),
    "out_shardings": (partial(jax.jit, out_shardings=WHOLE), "jit", ["out_shardings"]),
    "policy": (partial(jax.checkpoint, policy=SAVED), "remat2", ["policy"]),
    "no policy": (jax.checkpoint, "remat2", ["policy", "prevent_cse"]),
    "prevent_cse": (partial(jax.checkpoint, prevent_cse=False), "remat2", ["prevent_cse"]),
    "reverse": (partial(turns, reverse=True), "scan", ["reverse", "unroll", "length"]),
    "unroll": (partial(turns, unroll=2), "scan", ["reverse", "unroll", "length"]),
    "check_vma": (partial(on_devices, check_vma=False), "shard_map", ["check_vma"]),
    "mesh": (on_devices, "shard_map", ["check_vma", "mesh"]),
}


def named(step):
    def known_by_this(m, h):
        return step(m, h)

    return known_by_this


@pytest.mark.parametrize("name", TOLD)
def test_what_a_transformation_was_told_is_kept(name):
    transform, primitive, keys = TOLD[name]

    def told(step, *args):
        """What the equation says; of what it says of each input or output, what it says of `h`."""
        h = 0 if name == "out_shardings" else -1
        for eqn in jax.make_jaxpr(step)(*args).eqns:
            if str(eqn.primitive) == primitive:
                values = (eqn.params[key] for key in keys)
                return [value[h] if isinstance(value, tuple) else value for value in values]
        return None  # inlined at once

    host = Host(made(Acc), lambda m, h: transform(lambda m, h: (m(h),))(m, h)[0])
    by_hand = told(lambda s, h: transform(lambda _, h: (jnp.sin(h),))(s, h)[0], START, H)
    assert told(ox.call_and_update, host, H) == by_hand
    assert by_hand is not None or name == "inline"


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
