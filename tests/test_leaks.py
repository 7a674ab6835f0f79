"""Modules kept from a root call that has ended act on nothing (S4)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from hosts import Host, both, healthy
from threaded import Acc, made

import oryxstate as ox

H = 0.3
USES = {
    "call": lambda m: m(0.0),
    "assign": lambda m: m.assign(total=1.0),
    "read": lambda m: m.total,
}
ENDED = r"state 'inner\.(total|count)' belongs to a root call that has ended.*ox\.snapshot"


def leaked(kept_form: Callable) -> Acc:
    """A module kept from a root call that has ended."""
    kept = []
    ox.call(Host(made(Acc), lambda m, h: kept.append(kept_form(m))), 0.0)
    return kept[0]


@pytest.mark.parametrize("use", USES)
def test_leaked_live_module(use):
    module = leaked(lambda m: m)
    with pytest.raises(ox.EffectError, match=ENDED):
        USES[use](module)
    for run in both(ox.call):
        with pytest.raises(ox.EffectError, match=ENDED):
            run(Host(made(Acc), lambda m, h: USES[use](module)), 0.0)
    healthy()


def test_a_leaked_module_can_be_printed():
    """By a debugger, or by pytest beside the traceback of another error."""
    assert repr(leaked(lambda m: m)) == "<Acc of a root call that has ended>"


@pytest.mark.parametrize("use", ["call", "assign"])
def test_leaked_value(use):
    """A module that crossed a pytree operation in the call that has ended."""
    module = leaked(lambda m: jax.tree.map(lambda x: x, m))

    def step(m, h):
        USES[use](module)
        return h

    for run in both(ox.call_and_update):
        with pytest.raises(ox.EffectError, match=ENDED):
            run(Host(made(Acc), step), 0.0)
    with pytest.raises(ox.EffectError, match=ENDED):
        USES[use](module)
    assert module.total == made(Acc).total  # what it carries can be read
    assert ox.call(module, jnp.float32(H)) == made(Acc)(jnp.float32(H))
    healthy()
