"""Modules can be copied and pickled (S1, W14)."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox


def double(x):
    return 2 * x


class Dense(ox.Module):
    kernel: jax.Array = ox.param()
    count: jax.Array = ox.state(default_factory=lambda: jnp.zeros((), int))
    rate: float = ox.static(default=0.5)
    activation: Callable | None = ox.static(default=None)

    def call(self, x):
        self.assign(count=self.count + 1)
        return x @ self.kernel


class Box(ox.Module):
    inner: Any


def dense(**fields):
    return Dense(jnp.ones((2, 3)), **fields)


def test_copies_and_pickles_hold_the_same_and_work():
    module = Box([dense(name="a"), {"k": dense(rate=0.1)}])
    for new in (copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(new) is Box and new is not module
        assert jax.tree.structure(new) == jax.tree.structure(module)
        assert new.inner[0].update(jnp.ones(2)).count == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            new.inner = None
    assert copy.copy(module).inner is module.inner
    assert copy.deepcopy(module).inner is not module.inner


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.relu])
def test_a_deep_copy_has_the_same_static_values(function):
    """JAX's functions are copied by `copy.deepcopy`; the copy would be another structure."""
    module = dense(activation=function)
    new = copy.deepcopy(module)
    assert jax.tree.structure(new) == jax.tree.structure(module)
    assert new.kernel is not module.kernel


def test_a_module_with_a_function_is_pickled():
    module = pickle.loads(pickle.dumps(dense(activation=double)))
    assert module.activation is double
    assert jax.tree.structure(module) == jax.tree.structure(dense(activation=double))


def test_a_function_module_is_copied_and_pickled():
    """W14: copy and pickle failed."""
    module = ox.init(declares)(jax.random.key(0), jnp.ones(2))
    for new in (copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert jax.tree.structure(new) == jax.tree.structure(module)
        assert new.w.shape == (2,) and new.update(jnp.ones(2)).n == 1


def declares(x):
    n = ox.variable(0, name="n")
    ox.assign(n + 1, name="n")
    return x * ox.variable(jnp.ones(2), name="w")


def test_a_copy_taken_inside_a_call_is_a_value_with_the_current_state():
    class Copies(ox.Module):
        inner: Dense

        def call(self, x):
            self.inner(x)
            return copy.deepcopy(self.inner), copy.copy(self.inner)

    outs, new = Copies(dense()).call_and_update(jnp.ones(2))
    assert [int(out.count) for out in outs] == [1, 1]
    assert outs[0].update(jnp.ones(2)).count == 2 and new.inner.count == 1


@jax.jit
def jitted(x):
    return 2 * x


@pytest.mark.parametrize("function", [jax.nn.relu, jnp.tanh, jax.nn.gelu, jitted, len, np.sin])
def test_functions_are_pickled_by_their_name(function):
    """Those of JAX too, which are pickled nowhere else."""

    class Lambda(ox.Module):
        function: Any = ox.static()
        more: tuple = ox.static()

    module = Lambda(function, (function, (1, function)))
    twin = object.__new__(Lambda)
    twin.__setstate__(pickle.loads(pickle.dumps(module.__getstate__())))
    assert twin.function is function and twin.more == module.more
    assert jax.tree.structure(twin) == jax.tree.structure(module)
