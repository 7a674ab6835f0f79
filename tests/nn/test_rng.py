"""A key that a model keeps as state gives another key at each call (S15)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEYS = {"typed": jax.random.key(0), "data": jax.random.PRNGKey(0)}
kinds = pytest.mark.parametrize("kind", KEYS)


def bits(key):
    return jax.random.bits(key, (2,))


def distinct(rows):
    return len({tuple(row) for row in np.asarray(rows).reshape(-1, 2).tolist()})


def same(a, b):
    return bool((bits(a) == bits(b)).all())


class Drawing(ox.Module):
    """Returns what it draws, in a way it is told."""

    rng: Any
    way: Any = ox.static()

    def call(self, *args):
        return self.way(self.rng, *args)


@kinds
def test_each_call_gives_another_key(kind):
    def thrice(rng):
        return jnp.stack([bits(rng()) for _ in range(3)])

    model = Drawing(nn.Rng(KEYS[kind]), thrice)
    first, after = model.call_and_update()
    second, _ = after.call_and_update()
    assert distinct(jnp.concatenate([first, second])) == 6
    np.testing.assert_array_equal(first, model())
    assert not same(after.rng.key, KEYS[kind])


@kinds
def test_it_keeps_one_half_and_gives_the_other(kind):
    key, rng = nn.Rng(KEYS[kind]).call_and_update()
    kept, given = jax.random.split(KEYS[kind])
    assert same(key, given) and same(rng.key, kept)
    assert rng.key.dtype == KEYS[kind].dtype


@kinds
def test_each_iteration_gives_another_key(kind):
    def scanned(rng):
        return lax.scan(lambda c, _: (c, bits(rng())), None, length=4)[1]

    def looped(rng):
        out = jnp.zeros((4, 2), "uint32")
        return lax.fori_loop(0, 4, lambda i, out: out.at[i].set(bits(rng())), out)

    def unrolled(rng):
        return jnp.stack([bits(rng()) for _ in range(4)])

    outs = [
        jax.jit(ox.call_and_update)(Drawing(nn.Rng(KEYS[kind]), way))
        for way in (scanned, looped, unrolled)
    ]
    assert distinct(outs[0][0]) == 4
    for out, after in outs[1:]:
        np.testing.assert_array_equal(out, outs[0][0])
        assert same(after.rng.key, outs[0][1].rng.key)


def drawn_for(rng, x):
    return bits(rng(x))


@kinds
def test_each_example_gets_a_key_of_its_own(kind):
    model = Drawing(nn.Rng(KEYS[kind]), drawn_for)
    out, after = jax.vmap(model.call_and_update, out_axes=(0, None))(jnp.zeros(5))
    assert distinct(out) == 5
    assert same(after.rng.key, nn.Rng(KEYS[kind]).update().key)  # advanced once, for all


@kinds
def test_a_vmap_inside_the_model(kind):
    def mapped(rng, xs):
        return jax.vmap(lambda x: drawn_for(rng, x))(xs), bits(rng())

    (out, next_one), _ = Drawing(nn.Rng(KEYS[kind]), mapped).call_and_update(jnp.zeros(5))
    assert distinct(jnp.concatenate([out, next_one[None]])) == 6


def test_examples_of_nested_vmaps():
    model = Drawing(nn.Rng(KEYS["typed"]), drawn_for)
    assert distinct(jax.vmap(jax.vmap(model))(jnp.zeros((3, 4)))) == 12


def test_examples_and_iterations():
    def scanned(rng, x):
        return lax.scan(lambda c, _: (c, drawn_for(rng, x)), None, length=4)[1]

    assert distinct(jax.vmap(Drawing(nn.Rng(KEYS["typed"]), scanned))(jnp.zeros(3))) == 12


def test_without_like_all_examples_share_a_key():
    model = Drawing(nn.Rng(KEYS["typed"]), lambda rng, x: bits(rng()) + 0 * x.astype("uint32"))
    assert distinct(jax.vmap(model)(jnp.zeros(5))) == 1


def test_like_is_a_pytree_of_which_any_leaf_may_be_mapped():
    model = Drawing(nn.Rng(KEYS["typed"]), drawn_for)
    out = jax.vmap(lambda x: model({"a": jnp.ones(2), "b": (x, None, 3)}))(jnp.zeros(5))
    assert distinct(out) == 5


@pytest.mark.parametrize("way", [drawn_for, lambda rng, x: bits(rng())])
def test_each_member_of_an_ensemble_has_its_own(way):
    members = jax.vmap(lambda key: Drawing(nn.Rng(key), way))(jax.random.split(KEYS["typed"], 3))
    out, after = jax.vmap(ox.call_and_update, (0, None))(members, jnp.zeros(()))
    assert distinct(out) == 3
    alone = [ox.call_and_update(jax.tree.map(lambda k, i=i: k[i], members), 0.0) for i in range(3)]
    np.testing.assert_array_equal(out, jnp.stack([y for y, _ in alone]))
    assert all(same(after.rng.key[i], a.rng.key) for i, (_, a) in enumerate(alone))


class Noisy(ox.Module):
    """Adds noise to a product with what is learned."""

    scale: jax.Array
    rng: nn.Rng

    def call(self, x):
        return self.scale * x + jax.random.normal(self.rng(x), jnp.shape(x))


@kinds
def test_the_gradient_of_a_model_that_draws(kind):
    model = Noisy(jnp.array(2.0), nn.Rng(KEYS[kind]))

    def loss(scale, xs):
        run = model.replace(scale=scale).call_and_update
        ys, after = jax.vmap(run, out_axes=(0, None))(xs)
        return ys.sum(), after

    (value, after), grad = jax.value_and_grad(loss, has_aux=True)(model.scale, jnp.arange(4.0))
    assert float(grad) == 6.0 and abs(float(value) - 12) > 1e-3
    assert same(after.rng.key, model.rng.update().key)


def test_outside_of_a_model_a_call_gives_what_the_first_update_does():
    rng = nn.Rng(KEYS["typed"])
    assert same(rng(), rng()) and same(rng(), rng.call_and_update()[0])


def test_a_layer_with_an_rng_of_its_own():
    class OwnDropout(nn.Layer):
        rng: nn.Rng

        @classmethod
        def initialize(cls, init_key, in_spec):
            return nn.LayerParams(params={"rng": nn.Rng(init_key)})

        def call(self, x):
            return jnp.where(jax.random.bernoulli(self.rng(x), 0.5, x.shape), x, 0 * x)

    model = ox.init(nn.Dense.of(16) >> OwnDropout.of())(KEYS["typed"], jnp.ones(3))
    run = jax.vmap(model.call_and_update, out_axes=(0, None))
    first, after = run(jnp.ones((6, 3)))
    masks = np.asarray(first) != 0
    assert len({tuple(row) for row in masks.tolist()}) == 6
    second = jax.vmap(after)(jnp.ones((6, 3)))
    assert ((np.asarray(second) != 0) != masks).any()
