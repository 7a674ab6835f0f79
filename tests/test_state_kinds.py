"""State of every kind: any pytree, random keys, and modules in containers (S2, S5)."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hosts import START, H, Host, both, close, run
from jax import lax
from jaxtyping import Array
from threaded import Acc, acc, made

import oryxstate as ox

Both = namedtuple("Both", "a b")


class Box(ox.Module):
    held: Any = ox.state()

    def call(self, x):
        self.assign(held=jax.tree.map(lambda v: v + x.astype(v.dtype), self.held))
        return self.held


TREES = [
    [jnp.float32(1), jnp.int32(2)],
    {"a": {"b": jnp.ones(2)}, "c": [jnp.int32(1)]},
    Both(jnp.ones(2), (jnp.int32(1), None)),
    (),
    None,
]


@pytest.mark.parametrize("tree", TREES)
def test_state_of_any_structure(tree):
    def step(m, h):
        lax.scan(lambda c, _: (m(h), None), m(h), None, length=2)
        return m.held

    def add(tree):
        return jax.tree.map(lambda v: v + 3 * jnp.ones_like(v), tree)

    seen, new = run(step, Box(tree), jnp.float32(1))
    assert jax.tree.structure(seen) == jax.tree.structure(tree)
    close(seen, add(tree))
    close(new, add(tree))


class Keys(ox.Module):
    key: Array = ox.state()

    def call(self, h):
        key, use = jax.random.split(self.key)
        self.assign(key=key)
        return h + jax.random.normal(use)


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_key_as_state(make):
    def step(m, h):
        slope = jax.grad(jax.checkpoint(m))(h)
        return slope, m(h), lax.scan(lambda c, _: (c, jax.jit(m)(h)), h, None, length=2)[1]

    host = Host(Keys(make(0)), step)
    key, draws = make(0), []
    for _ in range(4):
        key, use = jax.random.split(key)
        draws.append(H + jax.random.normal(use))
    for call in both(ox.call_and_update):
        (slope, y, ys), new = call(host, H)
        close([slope, y, *ys], [jnp.float32(1), *draws[1:]])
        assert (new.inner.key == key).all()


def custom_vjp(f):
    run = jax.custom_vjp(f)
    run.defvjp(lambda x: (f(x), None), lambda _, bar: (2 * bar,))
    return run


def custom_jvp(f):
    run = jax.custom_jvp(f)
    run.defjvp(lambda x, dot: (f(*x), 2 * dot[0]))
    return run


class Ticks(ox.Module):
    key: Array = ox.state()

    def call(self, h):
        self.assign(key=self.key + 1)
        return h


@pytest.mark.parametrize("rule", [custom_jvp, custom_vjp])
@pytest.mark.parametrize("make", [lambda: Keys(jax.random.key(0)), lambda: Ticks(jnp.int32(0))])
def test_gradient_of_a_rule_with_state_that_has_none(make, rule):
    """In a loop all of its inputs may be said to be perturbed."""

    def step(m, h):
        return lax.scan(lambda c, _: (rule(lambda c: m(c))(c), None), h, None, length=3)[0]

    for call in both(jax.value_and_grad(ox.call_and_update, 1, has_aux=True)):
        (_, new), slope = call(Host(make(), step), H)
        close(slope, jnp.float32(8))
        want = make()
        for _ in range(3):
            _, want = want.call_and_update(H)
        assert (new.inner.key == want.key).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_ensemble_along_an_axis(axis):
    """The members stand along any axis of the state, and what they write stands there again."""

    class Member(ox.Module):
        v: Array = ox.state()

        def call(self, x):
            total = self.v.sum()
            self.assign(v=x)
            return total

    v, xs = jnp.arange(6.0).reshape(2, 3), jnp.ones((3 if axis else 2, 2 if axis else 3))
    host = Host(Member(v), lambda m, xs: jax.vmap(lambda m, x: m(x), (axis, 0))(m, xs))
    for call in both(ox.call_and_update):
        y, new = call(host, xs * H)
        close((y, new), (v.sum(0 if axis else 1), jnp.full((2, 3), H)))


class Model(ox.Module):
    parts: Any

    def call(self, h):
        flat = jax.tree.leaves(self.parts, is_leaf=lambda x: isinstance(x, Acc))
        for part in flat:
            h = part(h)
        return h


@pytest.mark.parametrize(
    "contain",
    [lambda *m: list(m), lambda *m: m, lambda a, b: {"x": [a], "y.z": b}, lambda *m: Both(*m)],
)
def test_modules_in_containers(contain):
    model = Model(contain(made(Acc), made(Acc, 0.75)))
    h, a = acc(START, H)
    h, b = acc((jnp.float32(0.75), *START[1:]), h)
    for call in both(ox.call_and_update):
        close(call(model, H), (h, [*a, *b]))
