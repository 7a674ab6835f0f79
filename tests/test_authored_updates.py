"""Modules with a `call_and_update` of their author, composed with others (S3, S4)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest
from hosts import START, H, Host, both, close, run
from jax import lax
from jaxtyping import Array
from threaded import Acc, Rule, acc, made

import oryxstate as ox


class Pair(ox.Module):
    """A rule that composes others, explicitly and implicitly."""

    explicit: Any
    implicit: Acc
    calls: Array = ox.state()

    def call_and_update(self, h):
        y, explicit = self.explicit.call_and_update(h)
        implicit = self.implicit
        return y + implicit.scale, self.replace(explicit=explicit, calls=self.calls + 1)


def three_calls():
    s, hs = START, []
    for _ in range(3):
        h, s = acc(s, H)
        hs.append(h)
    return hs, s


def test_rule_inside_a_call():
    def step(m, h):
        return m(h), lax.scan(lambda c, _: (m(h), None), h, None, length=2)[0]

    for inner in (made(Acc), made(Rule)):
        seen, new = run(step, Pair(inner, made(Acc), jnp.int32(0)))
        hs, s = three_calls()
        close(seen, [hs[0] + START[0], hs[2] + START[0]])
        close(new, [*s, *START, jnp.int32(3)])


def test_rule_that_changes_params():
    class Learner(Acc):
        def call_and_update(self, h):
            return h, self.replace(scale=self.scale + h)

    module = made(Learner)
    close(module.update(H).scale, START[0] + H)  # as a root it may
    for call in both(ox.call):
        with pytest.raises(ox.EffectError, match="Learner changed `scale`, which is not state"):
            call(Host(module, lambda m, h: m(h)), H)


def test_rule_of_another_structure():
    class Wrong(Acc):
        def call_and_update(self, h):
            return h, made(Acc)

    for call in (ox.call, lambda m, h: ox.call(Host(m, lambda m, h: m(h)), h)):
        with pytest.raises(ValueError, match="`call_and_update` of Wrong must return"):
            call(made(Wrong), H)
