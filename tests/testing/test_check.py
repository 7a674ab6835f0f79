"""Results of `check_module` for right modules, and its errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from broken import ONE, X
from broken_more import Cancels, Count, Twins
from jaxtyping import Array, Float

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing._check import check_module
from oryxstate.testing._laws import FOUNDATIONS, LAWS, LawError

KEY = jax.random.key(0)


class Gauge(ox.Module):
    """Averages what the examples of a batch write."""

    mean: Float[Array, ""] = ox.state(reduce=jnp.mean)

    def call(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        self.assign(mean=0.9 * self.mean + 0.1 * x.mean())
        return x - self.mean


class Total(ox.Module):
    """Its update depends on the example."""

    total: Float[Array, ""] = ox.state()

    def call(self, x):
        self.assign(total=self.total + x.sum())
        return jax.nn.relu(x) - jax.nn.relu(-x)  # whose derivative at 0 JAX takes for 0


class Repeated(ox.Module):
    """A loop of unknown length cannot be differentiated in reverse."""

    scale: Float[Array, ""]

    def call(self, x, times):
        return jax.lax.fori_loop(0, times, lambda _, h: self.scale * h, x)


class Sorted(ox.Module):
    """Takes only some inputs, and integers of 32 bits."""

    last: Array = ox.state()

    def call(self, x):
        x = eqx.error_if(x, jnp.any(x[1:] < x[:-1]), "not sorted")
        self.assign(last=jnp.argmax(x))
        return x


class Root(ox.Module):
    """Is not defined below 0, so neither are differences there."""

    scale: Float[Array, ""]

    def call(self, x):
        return self.scale * jnp.sqrt(x)


class Half(ox.Module):
    """A list, a NumPy array, and an output that is none."""

    scales: list[Array]
    offset: np.ndarray

    def call(self, x):
        return self.scales[0] * x + jnp.asarray(self.offset), None


class Affine(eqx.Module):
    """An Equinox model with a module of ours."""

    weight: Array
    count: Count

    def __call__(self, x):
        return self.weight * self.count(x)


class TwoFaults(ox.Module):
    """Cancels, and may share an array."""

    left: Array
    right: Array

    def call(self, x):
        return (x + 1e6 * self.left) - 1e6 * self.right


def layer(template: Any, x: Any) -> Any:
    return ox.init(template)(KEY, x)


def scaled(x):
    scale = ox.variable(jnp.ones(3), name="scale")
    calls = ox.variable(jnp.int32(0), name="calls")
    ox.assign(calls + 1, name="calls")
    return scale * x


HALF = jnp.ones(3, jnp.bfloat16)
BATCH = jnp.stack([X, 2 * X])
NET = nn.Dense.of(2) >> jnp.tanh >> nn.Dropout.of(0.5)
RNN = nn.RNN.of(nn.GRUCell.of(2))
# A module and its arguments, the keywords, and the laws that say nothing about it.
GOOD: dict[str, tuple[Callable[[], tuple], dict, str]] = {
    "a counter": (lambda: (Count(jnp.int32(0)), X), {}, "gradient_across_calls"),
    "layers with keys": (
        lambda: (layer(NET, X), X),
        {"training": True, "rng": KEY},
        "vmap_is_loop float64_agreement gradient_across_calls",
    ),
    "a batch": (
        lambda: (layer(nn.BatchNorm.of(), X), BATCH),
        {"training": True, "batched": True},
        "vmap_is_loop",
    ),
    "evaluated": (lambda: (layer(nn.BatchNorm.of(), X), X), {"training": False}, ""),
    "a recurrent layer": (lambda: (layer(RNN, BATCH), BATCH), {}, ""),
    "keys for examples": (
        lambda: (nn.Rng(KEY), X),
        {},
        "annotations_hold vmap_is_loop finite_gradient gradient_is_difference "
        "gradient_across_calls",
    ),
    "reduced state": (lambda: (Gauge(jnp.float32(0)), X), {}, "vmap_is_loop"),
    "state of an example, at a kink": (
        lambda: (Total(jnp.float32(0)), jnp.zeros(3)),
        {},
        "",
    ),
    "a loop of unknown length": (
        lambda: (Repeated(jnp.float32(0.5)), X, jnp.int32(3)),
        {},
        "finite_gradient gradient_is_difference gradient_across_calls",
    ),
    "few inputs": (
        lambda: (Sorted(jnp.int32(0)), X),
        {},
        "annotations_hold float64_agreement gradient_across_calls",
    ),
    "half precision": (
        lambda: (Half([HALF], np.ones(3, jnp.bfloat16)), HALF),
        {},
        "annotations_hold gradient_across_calls",
    ),
    "at the end of its domain": (
        lambda: (Root(ONE), jnp.float32(1e-20)),
        {},
        "gradient_across_calls",
    ),
    "outside of its domain": (
        lambda: (Root(ONE), jnp.float32(-1)),
        {},
        "finite_gradient gradient_is_difference gradient_across_calls",
    ),
    "an Equinox model": (
        lambda: (Affine(ONE, Count(jnp.int32(0))), X),
        {},
        "gradient_across_calls",
    ),
    "a function": (
        lambda: (ox.init(scaled)(KEY, X), X),
        {},
        "annotations_hold gradient_across_calls",
    ),
    "a list": (lambda: ([Twins(X[0], X[1]), Count(jnp.int32(0))], X), {}, "gradient_across_calls"),
}


@pytest.mark.parametrize("name", GOOD)
def test_right_modules(name):
    make, options, silent = GOOD[name]
    report = check_module(*make(), **options)
    assert set(report.not_applicable) == set(silent.split())
    assert sorted([*report.checked, *report.not_applicable]) == sorted(LAWS)
    assert all(len(reason) > 10 for reason in report.not_applicable.values())


def test_the_report_says_what_was_checked():
    report = check_module(Count(jnp.int32(0)), laws=["vmap_is_loop", "runs"], skip=["runs"])
    assert report.checked == ()
    assert str(report) == (
        "0 laws hold: .\nvmap_is_loop: not applicable, no argument is an array, so there are no "
        "examples to map over."
    )


def test_only_the_laws_that_are_asked_for():
    given = Cancels(ONE), X / 7
    assert check_module(*given, laws=["scan_is_loop", "runs"]).checked == ("runs", "scan_is_loop")
    assert "purity" not in check_module(Count(jnp.int32(0)), X, skip=["purity"]).checked


def test_a_tolerance_may_be_given():
    given, options = (Cancels(ONE), X / 7), {"laws": ["float64_agreement"]}
    assert failed_laws(*given, **options) == ("float64_agreement",)
    assert check_module(*given, tolerance=0.5, **options).checked == ("float64_agreement",)


def failed_laws(*args, **options):
    with pytest.raises(LawError) as caught:
        check_module(*args, **options)
    return caught.value.laws


def test_all_laws_that_do_not_hold_are_named():
    with pytest.raises(LawError) as caught:
        check_module(TwoFaults(ONE, ONE), X / 7)
    assert caught.value.laws == ("donation_safe", "float64_agreement")
    assert str(caught.value).startswith("2 laws do not hold: donation_safe, float64_agreement.\n")
    assert str(caught.value).count("Reproduce: check_module(TwoFaults(") == 2


@pytest.mark.parametrize("option", ["laws", "skip"])
def test_unknown_laws(option):
    found = r"no law 'scan_is_lop'. Did you mean 'scan_is_loop'\? The laws are: pytree_round_trip, "
    with pytest.raises(ValueError, match=found):
        check_module(Count(jnp.int32(0)), X, **{option: ["scan_is_lop"]})


def test_what_is_no_module():
    with pytest.raises(
        TypeError, match=r"draws the inputs of modules that it draws\. Give a module"
    ):
        check_module(Count, X)
    model = Affine(jnp.tanh, Count(jnp.int32(0)))
    with pytest.raises(TypeError, match=r"`weight` of Affine is .*, no array.*`ox.Module`"):
        check_module(model, X)


def test_a_batch_is_asked_for():
    norm = layer(nn.BatchNorm.of(), X)
    with pytest.raises(LawError, match=r"Give a batch of examples, and `batched=True`") as caught:
        check_module(norm, X, training=True)
    assert caught.value.laws == ("runs",)


def test_the_cause_is_the_error_of_the_module():
    with pytest.raises(LawError) as caught:
        check_module(Count(jnp.int32(0)), X, 3)
    assert isinstance(caught.value.__cause__, TypeError)


def test_errors_can_be_pickled():
    with pytest.raises(LawError) as caught:
        check_module(Count(jnp.int32(0)), X, 3)
    assert pickle.loads(pickle.dumps(caught.value)).laws == ("runs",)


def test_the_foundations_come_first():
    assert list(LAWS)[: len(FOUNDATIONS)] == list(FOUNDATIONS)
