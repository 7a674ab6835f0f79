"""Keywords of a root call at every layer, and the key of each call (S13, S15)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
X = jnp.ones(16)


class Noisy(nn.Layer):
    """Returns the bits of its key, and whether it trains."""

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams()

    def call(self, x, *, training: bool, rng: Any):
        return jax.random.bits(rng), training


class Scaled(nn.Layer):
    """Takes an array by keyword."""

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams()

    def call(self, x, *, temperature=1.0):
        return x / temperature


class Net(ox.Module):
    """Calls a layer through a transformation; takes no keyword itself."""

    parts: Any
    run: Any = ox.static()

    def call(self, *args):
        return self.run(self.parts, *args)


def scanned(parts, x):
    return lax.scan(lambda c, _: (c, parts(x)), 0, None, length=3)[1]


WAYS = {
    "directly": lambda parts, x: parts(x),
    "jit": lambda parts, x: jax.jit(lambda x: parts(x))(x),
    "jit, as an argument": lambda parts, x: jax.jit(lambda p, x: p(x))(parts, x),
    "checkpoint": lambda parts, x: jax.checkpoint(lambda x: parts(x))(x),
    "vmap": lambda parts, x: jax.vmap(lambda x: parts(x))(x[None]),
    "scan": scanned,
    "cond": lambda parts, x: lax.cond(x.sum() > 0, parts, parts, x),
    "filter_jit": lambda parts, x: eqx.filter_jit(parts)(x),
    "list": lambda parts, x: [parts][0](x),
}


@pytest.mark.parametrize("way", WAYS)
def test_keywords_reach_a_layer(way):
    for training in (True, False):
        net = Net(Noisy(), WAYS[way])
        for call in (ox.call_and_update, jax.jit(ox.call_and_update, static_argnames="training")):
            (_, seen), _ = call(net, X, training=training, rng=KEY)
            assert np.all(np.asarray(seen) == training)


def test_what_is_given_directly_counts():
    net = Net(Noisy(), lambda part, x: part(x, training=False, rng=KEY))
    bits, training = net(X, training=True, rng=jax.random.key(1))
    assert training is False and bits == jax.random.bits(KEY)


def test_a_cached_trace_of_one_value_is_not_used_for_another():
    body = jax.jit(lambda part, x: part(x))
    net = Net(Noisy(), lambda part, x: body(part, x))
    for training in (True, False, True):
        assert bool(net(X, training=training, rng=KEY)[1]) is training


def test_an_array_is_the_same_for_all_and_has_a_gradient():
    body = jax.jit(lambda part, x: part(x))
    net = Net(Scaled(), lambda part, x: body(part, x).sum())
    for temperature in (2.0, 4.0):
        for run in both(lambda t: net(X, temperature=t)):
            assert run(jnp.float32(temperature)) == 16 / temperature
    assert jax.grad(lambda t: net(X, temperature=t))(jnp.float32(2)) == -4
    assert net(X) == 16


def test_a_plain_module_gets_what_it_is_given():
    class Plain(ox.Module):
        def call(self, x, *, training=False):
            return training

    assert Net(Plain(), lambda part, x: (part(x), Noisy()))(X)[0] is False
    assert Net(Plain(), WAYS["directly"])(X, training=True) is True


# Keys ---------------------------------------------------------------------------------------------


def keys(run, parts=None, x=X):
    """The bits that layers drew, as a flat list."""
    net = Net(Noisy() if parts is None else parts, run)
    out = net(x, training=True, rng=KEY)
    drawn = [b for b in jax.tree.leaves(out) if getattr(b, "dtype", None) == jnp.uint32]
    return np.concatenate([np.ravel(b) for b in drawn]).tolist()


def distinct(found, count):
    assert len(found) == count and len(set(found)) == count


def test_each_layer_has_a_key_of_its_own():
    found = keys(lambda parts, x: [p(x) for p in parts], [Noisy(), Noisy()])
    distinct([*found, int(jax.random.bits(KEY))], 3)


def test_each_call_has_a_key_of_its_own():
    distinct(keys(lambda part, x: (part(x), part(x), jax.jit(lambda: part(x))())), 3)


def test_each_iteration_has_a_key_of_its_own():
    distinct(keys(scanned), 3)
    distinct(keys(lambda p, x: (scanned(p, x), scanned(p, x))), 6)

    def nested(p, x):
        return lax.scan(lambda c, _: (c, scanned(p, x)), 0, None, length=2)[1]

    distinct(keys(nested), 6)


@pytest.mark.parametrize(
    "run",
    [
        jax.vmap,
        lambda f: jax.vmap(jax.jit(f)),
        lambda f: jax.jit(jax.vmap(f)),
        lambda f: jax.vmap(jax.checkpoint(f)),
        lambda f: lambda x: jax.vmap(lambda x: lax.scan(lambda c, _: (c, f(x)), 0, None, 1)[1])(x),
    ],
)
def test_each_example_has_a_key_of_its_own(run):
    found = keys(lambda p, x: run(lambda x: p(x))(x), x=jnp.ones((4, 2)))
    distinct(found, 4)
    assert found == keys(lambda p, x: jax.vmap(lambda x: p(x))(x), x=jnp.ones((4, 2)))


def test_each_example_of_nested_vmaps_has_a_key_of_its_own():
    distinct(keys(lambda p, x: jax.vmap(jax.vmap(lambda x: p(x)))(x), x=jnp.ones((2, 3, 2))), 6)
    distinct(keys(lambda p, x: jax.vmap(jax.vmap(p, 1), 2)(x), x=jnp.ones((2, 3, 4))), 12)


def test_each_example_of_a_mapped_root_has_a_key_of_its_own():
    net, xs = Net(Noisy(), WAYS["directly"]), jnp.ones((3, 2))
    for run in both(jax.vmap(lambda x: net(x, training=True, rng=KEY)[0])):
        distinct(run(xs).tolist(), 3)
    each = jax.vmap(lambda x, key: net(x, training=True, rng=key)[0])
    split = jax.random.split(KEY, 3)
    assert each(xs, split).tolist() == [
        net(x, training=True, rng=key)[0] for x, key in zip(xs, split, strict=True)
    ]


def test_each_member_of_an_ensemble_has_a_key_of_its_own():
    class Member(nn.Layer):
        scale: jax.Array = ox.param()

        @classmethod
        def initialize(cls, init_key, in_spec):
            return nn.LayerParams(params={"scale": jnp.ones(())})

        def call(self, x, *, training: bool, rng: Any):
            return jax.random.bits(rng)

    members = Member(jnp.ones(3))
    distinct(keys(lambda m, x: jax.vmap(lambda m: m(x))(m), members), 3)


def test_each_device_has_a_key_of_its_own():
    mesh, split = Mesh(np.array(jax.devices()[:2]), ("d",)), PartitionSpec("d")

    def run(p, x):
        each = jax.shard_map(lambda x: p(x)[0][None], mesh=mesh, in_specs=split, out_specs=split)
        return each(x)

    distinct(keys(run), 2)


def test_keys_do_not_depend_on_unrelated_layers():
    alone = keys(lambda parts, x: parts["a"](x), {"a": Noisy()})
    beside = keys(lambda parts, x: (parts["b"](x), parts["a"](x))[1], {"b": Noisy(), "a": Noisy()})
    assert alone == beside


def test_keys_are_the_same_in_jit_and_each_time():
    net = Net([Noisy(), Noisy()], lambda parts, x: [p(x)[0] for p in parts])
    call = jax.jit(ox.call, static_argnames="training")
    runs = [f(net, X, training=True, rng=KEY) for f in (ox.call, call, ox.call)]
    assert runs[0] == runs[1] == runs[2]


def test_the_data_of_a_key_will_do():
    distinct(keys(lambda p, x: jax.vmap(lambda x: p(x))(x), x=jnp.ones((3, 2))), 3)
    net = Net(Noisy(), lambda p, x: jax.vmap(lambda x: p(x)[0])(x))
    distinct(net(jnp.ones((3, 2)), training=True, rng=jax.random.PRNGKey(0)).tolist(), 3)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({}, r"Noisy at 'parts\[1\]' needs `training`\. Give it where the model is called"),
        ({"training": True}, r"Noisy at 'parts\[1\]' needs `rng`\..*rng=\.\.\."),
        (
            {"trainig": True},
            r"neither Net nor a module in it takes a keyword `trainig`\. Did you mean `training`\?",
        ),
    ],
)
def test_errors(keywords, text):
    net = Net([nn.Lambda(jnp.sin), Noisy()], lambda parts, x: parts[1](parts[0](x)))
    for run in (net, jax.jit(lambda x, **k: net(x, **keywords))):
        with pytest.raises(TypeError, match=text):
            run(X, **keywords) if run is net else run(X)


@pytest.mark.parametrize("rng", [0, 1.5, "key", jnp.ones(2), jnp.zeros(3, jnp.uint32)])
def test_what_is_no_key_is_refused(rng):
    text = r"`rng` must be a random key, as `jax.random.key\(0\)`, got "
    with pytest.raises(TypeError, match=text):
        Net(nn.Dropout(0.5), WAYS["directly"])(X, training=True, rng=rng)


def test_no_key_is_needed_where_none_is_used():
    assert Net(nn.Dropout(0.5), WAYS["directly"])(X, training=False, rng=None) is not None


def test_a_traced_switch_says_how_to_make_it_static():
    net = Net(nn.Dropout(0.5), WAYS["directly"])
    text = r"Dropout at 'parts' got a traced `training`.*static_argnames='training'"
    with pytest.raises(TypeError, match=text):
        jax.jit(ox.call)(net, X, training=True, rng=KEY)
