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
from oryxstate.testing._laws import FOUNDATIONS, LAWS, LAWS_2026_11, SETS, LawError

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


class Rooted(Root):
    """Draws its inputs, 0 among them."""

    def call(self, x: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.sqrt(jnp.abs(x))


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
        large = jax.lax.stop_gradient(1e6 * self.left)
        return (x + large) - large + self.right


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


COUNT = (Count(jnp.int32(0)), X)
NO_FLOAT = "none of its state is a floating-point number"


def test_the_report_says_what_was_checked():
    laws = ["gradient_across_calls", "runs", "purity"]
    report = check_module(*COUNT, laws=laws, skip=["runs"])
    assert report.checked == ("purity",) and report.ran == 1
    assert (report.model, report.label) == ("Count", "oryxstate module")
    assert str(report) == (
        f"1 law holds: purity.\ngradient_across_calls: not applicable, {NO_FLOAT}."
    )


def test_a_model_on_which_no_law_ran_is_a_failure():
    with pytest.raises(LawError) as caught:
        check_module(*COUNT, laws=["gradient_across_calls"])
    reason = f"gradient_across_calls: not applicable, {NO_FLOAT}."
    assert str(caught.value) == f"no law ran on Count.\n  {reason}"
    assert check_module(*COUNT, laws=[]).ran == 0  # none was asked for


def test_an_expected_failure_is_reported_with_its_reason():
    known = {"float64_agreement": "it cancels"}
    report = check_module(Cancels(ONE), X / 7, expected_failures=known)
    assert report.expected_failures == known and "purity" in report.checked
    assert report.ran == len(report.checked) + 1 and "float64_agreement" not in report.checked
    assert "float64_agreement: fails as expected, it cancels." in str(report)


def test_an_expected_failure_that_holds_is_an_error():
    known = {"purity": "once", "gradient_across_calls": "it does not apply"}
    with pytest.raises(LawError) as caught:
        check_module(*COUNT, laws=["runs", *known], expected_failures=known)
    assert caught.value.laws == ("purity",)
    assert str(caught.value) == (
        "`purity` holds for Count, but `expected_failures` says that it does not: 'once'. Remove "
        "it there."
    )


def test_a_law_that_rests_on_an_expected_failure_does_not_apply():
    known = {"runs": "an argument too many"}
    found = check_module(*COUNT, 3, laws=["runs", "reproducible"], expected_failures=known)
    assert found.expected_failures == known
    reason = "it rests on `runs`, which is expected to fail"
    assert found.not_applicable == {"reproducible": reason}


def test_an_expected_failure_of_drawn_modules_fails_for_one_of_them():
    known = {"finite_gradient": "a root at 0"}
    laws = ["finite_gradient", "runs"]
    assert check_module(Rooted, laws=laws, expected_failures=known).expected_failures == known
    with pytest.raises(LawError, match="`finite_gradient` holds for Gauge"):
        check_module(Gauge, laws=laws, expected_failures=known)


def test_the_newest_set_names_every_law():
    assert tuple(LAWS) == LAWS_2026_11, "add a new law to the newest set, or once it is out, a set"
    assert list(SETS.values())[-1] == LAWS_2026_11


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


@pytest.mark.parametrize("option", ["laws", "skip", "expected_failures"])
def test_unknown_laws(option):
    found = r"no law 'scan_is_lop'. Did you mean 'scan_is_loop'\? The laws are: pytree_round_trip, "
    with pytest.raises(ValueError, match=found):
        check_module(Count(jnp.int32(0)), X, **{option: {"scan_is_lop": "why"}})


def test_what_is_no_module():
    with pytest.raises(
        TypeError, match=r"draws the inputs of modules that it draws\. Give a module"
    ):
        check_module(Count, X)
    with pytest.raises(TypeError, match=r"no adapter for int, and it cannot be called.*Functions"):
        check_module(3, X)


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
