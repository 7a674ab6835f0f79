"""Laws on the models of the examples, while these are trained."""

from __future__ import annotations

import runpy
from pathlib import Path

import jax
import pytest

from oryxstate import ArraySpec
from oryxstate.testing import check_module

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
KEY = jax.random.key(0)


def example(name, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture(autouse=True)
def as_users_run_them():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_digits(monkeypatch):
    net = example("digits", monkeypatch)["NET"].init(KEY, ArraySpec((8, 8, 1)))
    images = jax.random.uniform(KEY, (3, 8, 8, 1))
    report = check_module(net, images, training=True, rng=KEY, batched=True)
    assert set(report.not_applicable) == {
        "serialization_round_trip",  # of classes that are in no module that pickle finds
        "float64_agreement",
        "vmap_is_loop",
    }


def test_charlm(monkeypatch):
    charlm = example("charlm", monkeypatch)
    words = charlm["encode"]("to be")
    model = charlm["MODEL"].init(KEY, ArraySpec(words.shape, words.dtype))
    report = check_module(model, words, training=True, rng=KEY)
    assert set(report.not_applicable) == {
        "gradient_across_calls",  # of a model without state that is a float
        "float64_agreement",
        "vmap_is_loop",
    }
