"""Each law on right modules, and on modules that break it alone."""

from __future__ import annotations

import re
import types
from typing import Any

import broken
import broken_more
import jax
import jax.numpy as jnp
import pytest
from broken import ONE, X
from broken_more import Count
from hypothesis import given, settings
from strategies import inputs, modules

from oryxstate.testing._check import check_module
from oryxstate.testing._laws import LAWS, Case, LawError, _transformed, meaning

KEY = jax.random.key(0)
BROKEN = broken.BROKEN | broken_more.BROKEN
EAGER = [name for name in LAWS if name in {  # of these none compiles the call
    "pytree_round_trip", "no_stale_state", "runs", "stable_types", "purity", "reproducible",
    "rng_order", "no_static_array", "annotations_hold", "update_round_trip",
    "serialization_round_trip", "call_is_part",
}]  # fmt: skip


def failed(module: Any, *args: Any, **options: Any) -> LawError:
    with pytest.raises(LawError) as caught:
        check_module(module, *args, **options)
    return caught.value


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_module_breaks_one_law(fault):
    make, law, words = BROKEN[fault]
    error = failed(*make())
    assert error.laws == (law,)
    assert re.search(words, str(error), re.DOTALL)


def test_stale_state_is_found_again():
    """Although the array that is read is gone now before the first call."""
    for _ in range(2):
        assert failed(*BROKEN["reads stale state"].make()).laws == ("no_stale_state",)


def test_every_law_is_broken_by_a_module_or_a_transformation():
    by_transformation = {"checkpoint_is_plain", "scan_is_loop"}
    assert {law for _, law, _ in BROKEN.values()} | by_transformation == set(LAWS)


def test_checkpoint_is_plain(monkeypatch):
    """If `jax.checkpoint` ran a call twice."""

    def twice(run):
        return lambda module, x: run(run(module, x)[1], x)

    monkeypatch.setattr(jax, "checkpoint", twice)
    found = r"`count` of the updated module is 2 under `jax.checkpoint`, but 1 without"
    for x in (X, jnp.arange(3)):  # with a gradient and without
        with pytest.raises(LawError, match=found):
            LAWS["checkpoint_is_plain"](Case(Count(jnp.int32(0)), (x,)))


def test_scan_is_loop(monkeypatch):
    """If `lax.scan` forgot the last step."""

    def forgetful(step, module, xs, length):
        most = jax.tree.map(lambda x: x[:-1], xs)
        return jax.lax.scan(step, module, most)[0], jax.lax.scan(step, module, xs)[1]

    monkeypatch.setattr(_transformed, "lax", types.SimpleNamespace(scan=forgetful))
    with pytest.raises(LawError, match=r"`count` .* is 2 in `lax.scan`, but 3 in a loop"):
        LAWS["scan_is_loop"](Case(Count(jnp.int32(0)), (X,)))


@pytest.mark.parametrize("name", LAWS)
def test_laws_say_what_they_mean_in_one_line(name):
    text = meaning(LAWS[name])
    assert text.endswith(".") and 20 < len(text) < 95
    assert LAWS[name].__name__ == name


@settings(max_examples=10)
@given(modules, inputs)
def test_no_law_fails_for_a_right_module(module, x):
    """Of any fields, children and loops."""
    check_module(module, x, laws=EAGER)


def test_reproduced_with_the_same_arguments():
    case = Case(Count(jnp.int32(0)), (ONE, "a"), {"training": True}, True, 0.5)
    wanted = r"check_module\(Count\(.*\), .*, 'a', training=True, batched=True, tolerance=0.5, laws"
    with pytest.raises(LawError, match=wanted):
        LAWS["runs"](case)
