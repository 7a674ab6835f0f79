"""Pickles keep the structure of a model, and outlive a change of its class (S1)."""

import copy
import functools
import pickle
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox


def scaled(x, scale=1, **more):
    return x * scale


class Config(ox.Module):
    value: Any = ox.static()

    def call(self, x):
        return self.value(x)


class Box(ox.Module):
    inner: Any


def round_trip(module):
    return pickle.loads(pickle.dumps(module))


leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
PARTIALS = [
    leaky,
    functools.partial(jnp.sum, axis=0),
    functools.partial(scaled, scale=2),
    functools.partial(leaky, negative_slope=0.3),
    functools.partial(scaled, 2.0, extra=(jax.nn.relu, "a")),
    functools.partial(jax.tree.map, leaky),
    (leaky, (1, functools.partial(jnp.tanh))),
]


@pytest.mark.parametrize("value", PARTIALS)
def test_partials_keep_the_structure_of_a_model(value):
    for module in (Config(value), Box([Config(value), {"k": Config(value)}])):
        for new in (round_trip(module), round_trip(round_trip(module)), copy.deepcopy(module)):
            assert jax.tree.structure(new) == jax.tree.structure(module)
        assert jax.tree.structure(copy.copy(module)) == jax.tree.structure(module)


def test_a_loaded_partial_computes_the_same_in_the_same_trace():
    module, traces = Config(leaky), []

    @jax.jit
    def run(module, x):
        traces.append(module)
        return module(x)

    assert run(module, -1.0) == run(round_trip(module), -1.0) == jnp.float32(-0.2)
    assert len(traces) == 1
    assert isinstance(module.value, functools.partial) and module.value.keywords == leaky.keywords


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(scaled, scale=2), functools.partial(scaled, scale=2.0)),
        (functools.partial(scaled, scale=1), functools.partial(scaled, scale=True)),
        (functools.partial(scaled, 0.0), functools.partial(scaled, -0.0)),
        (functools.partial(scaled, 2), functools.partial(scaled, scale=2)),
        (functools.partial(scaled, scale=[2]), functools.partial(scaled, scale=[2])),
    ],
)
def test_partials_that_differ_are_other_structures(one, other):
    """Also those of values without a hash, which are compared by identity."""
    assert jax.tree.structure(Config(one)) != jax.tree.structure(Config(other))
    kept = Config(one)
    assert jax.tree.structure(kept) == jax.tree.structure(kept.replace(name=None))
    assert round_trip(Config(one)).value.keywords == one.keywords


def test_attributes_of_a_partial_are_kept():
    named = functools.update_wrapper(functools.partial(scaled, scale=2), scaled)
    assert Config(named).value.__name__ == "scaled"
    assert round_trip(Config(named)).value.__name__ == "scaled"


SOURCE = """
import jax, jax.numpy as jnp, oryxstate as ox
class Saved(ox.Module):
    w: jax.Array
    {more}
    def call(self, x):
        return self.w * x
class Net(ox.Module):
    layers: list
"""
FIELDS = {
    "scale: float = ox.static(default=1.0)": 1.0,
    "scale: jax.Array = ox.state(default_factory=lambda: jnp.zeros(2))": None,
    "scale: jax.Array = ox.param(default=3, converter=jnp.asarray)": 3,
    "scale: Saved | None = None": None,
}


@pytest.fixture
def define(monkeypatch):
    """Define `Saved` with another field, as an older or newer release of a script does."""
    module = types.ModuleType("saved_models")
    monkeypatch.setitem(sys.modules, "saved_models", module)

    def define(more):
        source = "from __future__ import annotations\n" + SOURCE.format(more=more)
        exec(source, module.__dict__)
        return module

    return define


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("field", "value"), FIELDS.items())
def test_a_new_field_gets_its_default(define, field, value, nested):
    old = define("")
    saved = old.Saved(jnp.ones(2))
    data = pickle.dumps(old.Net([saved]) if nested else saved)
    new = define(field)
    loaded = pickle.loads(data)
    loaded = loaded.layers[0] if nested else loaded
    fresh = new.Saved(jnp.ones(2))
    assert jax.tree.structure(loaded) == jax.tree.structure(fresh)
    assert value is None or loaded.scale == value
    assert (jax.jit(ox.update)(loaded, 1.0).w == 1).all()


def test_a_new_field_without_default_is_an_error(define):
    data = pickle.dumps(define("").Saved(jnp.ones(2)))
    define("scale: float = ox.static()")
    with pytest.raises(TypeError, match=r"no field `scale` of Saved.*Give the field a default"):
        pickle.loads(data)


def test_a_field_that_is_gone_is_an_error(define):
    old = define("scale: float = ox.static(default=1.0)")
    data = pickle.dumps(old.Net([old.Saved(jnp.ones(2))]))
    define("")
    with pytest.raises(TypeError, match=r"field `scale` of Saved, which the class does not have"):
        pickle.loads(data)
