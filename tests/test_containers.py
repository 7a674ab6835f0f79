"""Tuples fan out, lists compose, dicts fan out; Equinox models hold modules and are held (S11)."""

from collections import namedtuple
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from strategies import assert_same

import oryxstate as ox

KEY = jax.random.key(0)
Two = namedtuple("Two", ["left", "right"])


class Counter(ox.Module):
    count: jax.Array = ox.state(default_factory=lambda: jnp.zeros((), int))

    def call(self, x, scale=1.0):
        self.assign(count=self.count + 1)
        return scale * x * self.count.astype(jnp.float32)


class Members(list):
    """A list that is no list."""


def dense(x, init_key=None):
    return x @ ox.variable(jax.random.normal(init_key, (x.shape[-1], 2)), name="w")


def scaled(x, init_key=None):
    """Remembers the data with which it was initialized."""
    return x * ox.variable(x.mean(), name="mean")


BOTH = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jitted"])


@BOTH
def test_a_tuple_fans_out(transform):
    outs, new = transform(ox.call_and_update)((Counter(), Counter().update(1.0)), 2.0)
    assert type(outs) is tuple and [float(y) for y in outs] == [2, 4]
    assert type(new) is tuple and [int(m.count) for m in new] == [1, 2]


@BOTH
def test_a_namedtuple_is_kept(transform):
    outs, new = transform(ox.call_and_update)(Two(Counter(), Counter()), 2.0)
    assert type(outs) is Two and type(new) is Two and new.left.count == 1 and outs.right == 2
    made = ox.init(Two(dense, dense))(KEY, jnp.ones(3))
    assert type(made) is Two and made.left.w.shape == (3, 2)


@BOTH
def test_a_list_composes(transform):
    models = [Counter().update(1.0), Counter().update(1.0)]
    y, new = transform(ox.call_and_update)(models, 3.0)
    assert y == 12 and [int(m.count) for m in new] == [2, 2] and type(new) is list
    assert [int(m.count) for m in models] == [1, 1]


@BOTH
def test_a_dict_fans_out_by_key(transform):
    outs, new = transform(ox.call_and_update)({"a": Counter(), "b": Counter()}, 2.0)
    assert list(outs) == ["a", "b"] and outs["b"] == 2 and new["a"].count == 1


def test_keywords_go_to_the_functions_and_modules_that_take_them():
    class Trained(ox.Module):
        def call(self, x, *, training):
            return x if training else -x

    def scaled(x, *, training=False, gain=1.0):
        return gain * x if training else 0 * x

    keywords = {"training": True, "gain": 3.0}
    assert ox.call((scaled, Trained()), 2.0, **keywords) == (6.0, 2.0)
    assert ox.call([Trained(), scaled, jnp.negative], 2.0, **keywords) == -6.0
    assert ox.call([Trained(), (jnp.negative, [scaled])], 2.0, **keywords) == (-2.0, 6.0)


def test_keywords_go_to_every_member_of_a_tuple_and_the_first_of_a_list():
    assert [float(y) for y in ox.call((Counter(), Counter()), 1.0, scale=3.0)] == [3, 3]
    assert ox.call([Counter(), Counter()], 1.0, scale=3.0) == 3


@BOTH
def test_containers_nest(transform):
    model = [(Counter(), Counter()), lambda a, b: a + b, {"a": Counter()}]
    y, new = ox.call_and_update(model, 2.0)
    assert y["a"] == 4 and new[0][1].count == 1 and new[2]["a"].count == 1
    data = [(Counter(), Counter()), {"a": [Counter()]}]
    with pytest.raises(TypeError, match="positional argument"):
        ox.call([(lambda x: x,) * 3, *data], 2.0)  # a counter does not take three inputs
    assert transform(ox.update)(data[:1], 2.0)[0][0].count == 1


def test_a_module_that_stands_twice_in_a_container_is_two_values():
    counter = Counter()
    new = ox.update([counter, counter], 1.0)
    assert [int(m.count) for m in new] == [1, 1] and new[0] is not new[1]


@pytest.mark.parametrize(("empty", "kind"), [((), "tuple"), ([], "list"), ({}, "dict")])
def test_empty_containers_are_errors(empty, kind):
    for run in (ox.call_and_update, ox.call, ox.update):
        with pytest.raises(ValueError, match=f"empty {kind} is not a model"):
            run(empty, 1.0)
    with pytest.raises(ValueError, match=f"empty {kind} is not a model"):
        ox.init(empty)
    with pytest.raises(ValueError, match=f"empty {kind} is not a model"):
        ox.spec(empty)(ox.ArraySpec(3))


def test_a_member_that_cannot_be_called_is_an_error():
    with pytest.raises(TypeError, match="cannot call"):
        ox.call([Counter(), 3], 1.0)
    with pytest.raises(TypeError, match="cannot initialize"):
        ox.init((dense, 3))(KEY, jnp.ones(3))


@pytest.mark.parametrize("make", [list, tuple, lambda fs: dict(enumerate(fs))])
def test_w22_init_splits_keys(make):
    made = jax.tree.leaves(ox.init(make([dense, dense]))(KEY, jnp.ones(2)))
    assert len(made) == 2 and not jnp.array_equal(*made)


def test_w22_list_init_feeds_the_data_of_the_member_before():
    """It fed ones."""
    model = ox.init([lambda x: 2 * x, scaled, dense])(KEY, jnp.array([1.0, 2.0, 6.0]))
    assert model[1].mean == 6 and model[2].w.shape == (3, 2)


def test_w22_init_and_calls_keep_a_list_subclass():
    model = ox.init(Members([scaled, scaled]))(KEY, jnp.ones(2))
    assert type(model) is Members and type(ox.update(model, jnp.ones(2))) is Members


def test_tuple_init_gives_the_same_arguments_to_each():
    made = ox.init((scaled, scaled))(KEY, jnp.array([1.0, 3.0]))
    assert [float(m.mean) for m in made] == [2, 2]


@pytest.mark.parametrize(
    ("container", "names"),
    [((dense, dense), ["n_0", "n_1"]), ([scaled, dense], ["n_0", "n_1"]), ({"a": dense}, ["n_a"])],
)
def test_members_are_named_after_the_container(container, names):
    made = ox.init(container, name="n")(KEY, jnp.ones(3))
    members = made.values() if isinstance(made, dict) else made
    assert [m.name for m in members] == names


def test_spec_of_containers():
    x = ox.ArraySpec((4, 3))
    out = ox.ArraySpec((4, 2))
    assert ox.spec([dense, jax.nn.relu])(x) == out
    assert ox.spec((dense, dense))(x) == (out, out)
    assert ox.spec({"a": dense})(x) == {"a": out}
    assert ox.spec([Counter(), Counter()])(ox.ArraySpec(())) == ox.ArraySpec(())


@BOTH
def test_a_container_is_a_child(transform):
    class Holds(ox.Module):
        layers: list
        heads: Any

        def call(self, x):
            for layer in self.layers:
                x = layer(x)
            return x + self.heads["a"][0](x)

    model = Holds([Counter(), Counter()], {"a": (Counter(),)})
    _, new = transform(ox.call_and_update)(model, 1.0)
    assert [int(n) for n in jax.tree.leaves(new)] == [1, 1, 1]


class Classifier(eqx.Module):
    """An Equinox model with a module inside."""

    linear: eqx.nn.Linear
    norms: list
    activation: Any = eqx.field(static=True)

    def __call__(self, x):
        for norm in self.norms:
            x = norm(x)
        return self.activation(self.linear(self.norms[0](x)))


@BOTH
def test_an_equinox_model_is_a_root(transform):
    linear = eqx.nn.Linear(2, 3, key=KEY)
    model = Classifier(linear, [Counter(), Counter()], jnp.tanh)
    y, new = transform(ox.call_and_update)(model, jnp.ones(2))
    assert y.shape == (3,) and type(new) is Classifier and new.activation is jnp.tanh
    assert [int(norm.count) for norm in new.norms] == [2, 1]
    assert_same(new.linear, linear)
    assert jax.tree.structure(new) == jax.tree.structure(model) and model.norms[0].count == 0


class Wraps(ox.Module):
    mlp: eqx.nn.MLP
    count: jax.Array = ox.state(default_factory=lambda: jnp.zeros((), int))

    def call(self, x):
        self.assign(count=self.count + 1)
        return self.mlp(x)


@BOTH
def test_an_equinox_mlp_is_a_child_under_plain_jit(transform):
    mlp = eqx.nn.MLP(2, 3, 4, 1, key=KEY)
    model = Wraps(mlp)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model))
    x = jnp.array([1.0, -2.0])
    y, new = transform(ox.call_and_update)(model, x)
    assert jnp.allclose(y, mlp(x), atol=1e-6) and new.count == 1
    assert eqx.tree_equal(new.mlp, mlp) and new.mlp.activation is mlp.activation
    gradient = transform(ox.grad(lambda m: ox.call(m, x).sum()))(model)
    expected = eqx.filter_grad(lambda m: m(x).sum())(mlp)
    assert jnp.allclose(gradient.mlp.layers[0].weight, expected.layers[0].weight, atol=1e-6)


def test_an_equinox_child_with_a_module_of_ours_inside_threads_its_state():
    class Outer(ox.Module):
        inner: Classifier

        def call(self, x):
            return self.inner(x)

    inner = Classifier(eqx.nn.Linear(2, 3, key=KEY), [Counter()], jnp.tanh)
    assert jax.jit(ox.update)(Outer(inner), jnp.ones(2)).inner.norms[0].count == 2
