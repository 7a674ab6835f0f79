"""Static values are compared with their type, since JAX compares them by `==` alone (S1)."""

import copy
import dataclasses
import enum
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox


class Config(ox.Module):
    value: Any = ox.static()


@dataclasses.dataclass(frozen=True)
class Options:
    rate: Any


class Pair(tuple):
    pass


class Number(enum.IntEnum):
    ONE = 1


ALIKE = [
    (2, 2.0),
    (1, True),
    (0.0, -0.0),
    (1, Number.ONE),
    ((1, 2), (1, 2.0)),
    ((0, (0.0,)), (0, (-0.0,))),
    (frozenset({1}), frozenset({True})),
    (Options(1), Options(1.0)),
    ((1, 2), Pair((1, 2))),
    (complex(0.0, 0.0), complex(0.0, -0.0)),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=repr)
def test_static_values_are_compared_with_their_type(one, other):
    assert one == other and hash(one) == hash(other)
    assert jax.tree.structure(Config(one)) != jax.tree.structure(Config(other))
    assert jax.tree.structure(Config(one)) == jax.tree.structure(Config(copy.deepcopy(one)))


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=repr)
def test_no_stale_trace_is_used_for_a_value_that_only_looks_the_same(one, other):
    seen = []

    @jax.jit
    def traced(config, x):
        seen.append((type(config.value), repr(config.value)))
        return x

    for value in (one, other, one, other):
        traced(Config(value), 1.0)
    assert seen == [(type(one), repr(one)), (type(other), repr(other))]


def test_replace_gives_a_new_static_value_its_own_trace():
    jitted = jax.jit(lambda config: jnp.float32(isinstance(config.value, float)))
    config = Config(2)
    assert [float(jitted(config)), float(jitted(config.replace(value=2.0)))] == [0, 1]


def test_values_of_different_types_are_never_compared():
    """`np.float32(1) == (1, 2)` is an array, which has no truth value."""

    class Own(Config):
        """JAX compares all modules of one class that it has seen."""

    jitted = jax.jit(lambda config: jnp.float32(isinstance(config.value, tuple)))
    assert [float(jitted(Own(v))) for v in (np.float32(1), (1, 2), 1, np.float32(1))] == [
        0,
        1,
        0,
        0,
    ]


def test_equal_values_share_one_trace():
    traces = []
    jitted = jax.jit(lambda config: traces.append(config) or jnp.float32(0))
    for value in ((1, 2.0), Options((1, "a")), frozenset({1}), Number.ONE):
        traces.clear()
        jitted(Config(value)), jitted(Config(copy.deepcopy(value)))
        assert len(traces) == 1


class Weird:
    """A value whose `==` does not tell what it is."""

    def __init__(self, tag):
        self.tag = tag


def test_a_value_without_eq_is_compared_by_identity():
    one, other = Weird(1), Weird(1)
    assert jax.tree.structure(Config(one)) == jax.tree.structure(Config(one))
    assert jax.tree.structure(Config(one)) != jax.tree.structure(Config(other))


def test_partials_are_static():
    assert Config(functools.partial(jnp.sum, axis=0)).value.keywords == {"axis": 0}
