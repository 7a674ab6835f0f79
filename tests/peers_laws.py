"""Laws on models of Flax and Haiku (`nox -s peers`); those of Equinox are in the other tests."""

from __future__ import annotations

import re
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from oryxstate.testing import LAWS, Case, LawError, adapt, check_module

KEY = jax.random.key(0)
X = jnp.array([1.0, -2.0, 4.0])
BATCH = jnp.stack([X, 2 * X, X + 1])
# What says nothing about models whose arrays are beside them.
BESIDE = {"no_static_array", "annotations_hold", "update_round_trip", "call_is_part"}
NO_STATE = {"gradient_across_calls"}  # none of floating-point numbers
DRAWS = {"vmap_is_loop", "float64_agreement"}


@pytest.fixture(autouse=True)
def promotion():
    """Flax and Haiku promote dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Block(nnx.Module):
    """A norm with state, and random numbers."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(jnp.tanh(self.norm(self.dense(x))))


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(3)(x))
        return linen.Dropout(0.5, deterministic=not train)(jnp.tanh(x))


def block(x):
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(3)(x), is_training=True)
    return hk.dropout(hk.next_rng_key(), 0.5, jnp.tanh(x))


def linear(x):
    return jnp.tanh(hk.Linear(2)(x))


DENSE = linen.Dense(2)
RNGS = {"dropout": jax.random.key(1)}
# A model and its arguments, keywords, its kind, and the laws that say nothing beside `BESIDE`.
RIGHT: dict[str, tuple[Any, dict, str, set[str]]] = {
    "nnx": (lambda: (Block(nnx.Rngs(0)), BATCH), {}, "Flax NNX module", DRAWS),
    "nnx alone": (lambda: (nnx.Linear(3, 2, rngs=nnx.Rngs(0)), X), {}, "Flax NNX", NO_STATE),
    "linen": (lambda: (LinenBlock(), BATCH), {"rngs": RNGS}, "Flax Linen module", DRAWS),
    "linen evaluated": (lambda: (LinenBlock(), BATCH), {"train": False}, "Flax Linen", set()),
    "linen bound": (lambda: (DENSE.bind(DENSE.init(KEY, X)), X), {}, "Flax Linen", NO_STATE),
    "linen as a pair": (lambda: ((DENSE.init, DENSE.apply), X), {}, "pair", NO_STATE),
    "haiku": (
        lambda: (hk.transform_with_state(block), BATCH),
        {"rng": KEY},
        "Haiku function with state",
        DRAWS,
    ),
    "haiku without state": (lambda: (hk.transform(linear), X), {}, "Haiku function", NO_STATE),
    "haiku without keys": (
        lambda: (hk.without_apply_rng(hk.transform(linear)), X),
        {},
        "Haiku function",
        NO_STATE,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_all_laws_hold_for_a_right_model(name):
    make, options, label, silent = RIGHT[name]
    report = check_module(*make(), **options)
    assert set(report.not_applicable) == BESIDE | silent
    assert len(report.checked) == len(LAWS) - len(BESIDE | silent)
    assert report.label.startswith(label)


@pytest.mark.parametrize("rngs", [KEY, None])
def test_keys_of_linen_need_no_names(rngs):
    model = linen.Dense(2) if rngs is None else LinenBlock()
    assert check_module(model, BATCH, rngs=rngs, laws=["runs"]).checked == ("runs",)


@pytest.mark.parametrize("name", RIGHT)
def test_cases_of_one_model_share_programs(name):
    make, options, _, _ = RIGHT[name]
    model, *args = make()
    case = Case(model, tuple(args), options).of_laws
    twin = Case(model, tuple(args), options, programs=case.programs).of_laws
    assert twin.jitted.func is case.jitted.func


class Bump(nnx.Module):
    """Counts its calls in a Python number."""

    def __init__(self):
        self.calls = 0
        self.scale = nnx.Param(jnp.ones(3))

    def __call__(self, x):
        self.calls += 1
        return self.scale[...] * x


class Widens(nnx.Module):
    def __init__(self):
        self.count = nnx.Variable(jnp.int32(0))

    def __call__(self, x):
        self.count.set_value(self.count[...] + 1.0)
        return x


class Norm(linen.Module):
    """Its gradient at 0 is not finite."""

    @linen.compact
    def __call__(self, x):
        scale = self.param("scale", linen.initializers.ones, ())
        return scale * x / (jnp.sqrt(jnp.sum(x**2)) + 1e-6)


class KeepsDtype(linen.Module):
    """State of another dtype after the first call."""

    @linen.compact
    def __call__(self, x):
        seen = self.variable("stats", "seen", lambda: jnp.zeros((), jnp.bfloat16))
        if not self.is_initializing():
            seen.value = seen.value + x.sum()
        return x


def noisy(x):
    return x * hk.get_parameter("scale", (), init=jnp.ones) + np.random.normal()


def forgetful(x):
    seen = hk.get_state("seen", (), jnp.int32, init=jnp.zeros)
    hk.set_state("seen", seen + x.sum())
    return x


WRONG: dict[str, tuple[Any, str, str]] = {
    "nnx, a Python counter": (lambda: (Bump(), X), "no_retrace", "traced again.*keep it in an arr"),
    "nnx, a dtype": (lambda: (Widens(), X), "stable_types", "`variables.'count'.*float32.*int32"),
    "linen, a gradient": (lambda: (Norm(), 0 * X), "finite_gradient", "not finite"),
    "linen, a dtype": (lambda: (KeepsDtype(), X), "stable_types", "float32.* but bfloat16"),
    "haiku, global numbers": (
        lambda: (hk.transform(noisy), X),
        "rng_order",
        "draw from a key of JAX",
    ),
    "haiku, a dtype": (lambda: (hk.transform_with_state(forgetful), X), "stable_types", "int32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_law_finds_the_fault(name):
    make, law, found = WRONG[name]
    with pytest.raises(LawError) as caught:
        check_module(*make())
    assert caught.value.laws[0] == law
    assert re.search(found, str(caught.value), re.DOTALL)


def test_what_is_learned():
    """Params, not the statistics of norms, nor keys and counts of random numbers."""
    for make in (RIGHT["nnx"], RIGHT["linen"], RIGHT["haiku"]):
        model, *args = make[0]()
        adapted = adapt(model, tuple(args), make[1])
        learned, rest = adapted.partition(adapted.values)
        assert len(jax.tree.leaves(learned)) == 4  # kernel and bias, scale and bias of the norm
        values = len(jax.tree.leaves(adapted.values))
        assert len(jax.tree.leaves(rest)) == values - 4 >= 2


def test_the_name_of_a_haiku_function():
    report = check_module(hk.transform(linear), X, laws=["runs"])
    assert report.model == "linear"
