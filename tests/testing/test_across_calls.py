"""The law of gradients through state that is threaded from call to call (S9)."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import pytest
from broken import X
from broken_more import ForgetsDerivativeOfState
from jax import lax
from jaxtyping import Array, Float

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing._laws import LAWS, Case, LawError, NotApplicable, _across_calls

LAW = LAWS["gradient_across_calls"]
HALF = jnp.float32(0.5)


class Memory(ox.Module):
    """Gives the decayed sum of what it was given."""

    decay: Float[Array, ""]
    total: Float[Array, " n"] = ox.state()

    def call(self, x):
        self.assign(total=self.decay * self.total + x)
        return jnp.tanh(self.total)


class Stopped(Memory):
    """Remembers on purpose without a gradient."""

    def call(self, x):
        self.assign(total=lax.stop_gradient(self.decay * self.total + x))
        return self.decay * self.total


class InHalf(Memory):
    """Computes in bfloat16."""

    def call(self, x):
        return Memory.call(self, x.astype(jnp.bfloat16).astype(jnp.float32))


class OwnDerivative(Memory):
    """Reads state in a function whose rule says nothing of it."""

    def call(self, x):
        @jax.custom_jvp
        def scaled(x):
            return self.total * x

        scaled.defjvp(lambda primals, tangents: (scaled(*primals), self.total * tangents[0]))
        self.assign(total=self.decay * self.total)
        return scaled(x)


class RightRule(Memory):
    """Has a derivative of its own, and a right one."""

    def call(self, x):
        self.assign(total=_product(self.decay, self.total) + x)
        return self.total


@jax.custom_vjp
def _product(a, b):
    return a * b


_product.defvjp(lambda a, b: (a * b, (a, b)), lambda ab, g: (jnp.sum(ab[1] * g), ab[0] * g))


def batch_norm():
    return ox.init(nn.BatchNorm.of())(jax.random.key(0), X)


@pytest.mark.parametrize("make", [Memory, Stopped, RightRule])
def test_the_law_holds(make):
    LAW(Case(make(HALF, X), (X,)))


def test_it_holds_for_statistics():
    LAW(Case(batch_norm(), (jnp.stack([X, -2 * X]),), {"training": True}, batched=True))


def test_it_holds_in_float32_alone():
    """Where a module refuses other dtypes."""

    class Narrow(Memory):
        def call(self, x):
            if x.dtype != jnp.float32:
                raise TypeError("only float32")
            return Memory.call(self, x)

    LAW(Case(Narrow(HALF, X), (X,)))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Lambda(jnp.tanh), "none of its state is a floating-point number"),
        (InHalf(HALF, X), "half precision"),
        (OwnDerivative(HALF, X), "state 'total' is read inside `custom_jvp`"),
    ],
)
def test_it_does_not_apply(module, words):
    with pytest.raises(NotApplicable, match=words):
        LAW(Case(module, (X,)))


def test_it_fails_if_a_rule_drops_the_state():
    with pytest.raises(LawError, match=r"over 2 calls.*`skip=\['gradient_across_calls'\]`"):
        LAW(Case(ForgetsDerivativeOfState(HALF, X), (X,)))


def test_it_fails_if_a_scan_stops_the_gradient_of_its_carry(monkeypatch):
    def stopping(step, module, xs, length):
        return lax.scan(lambda m, x: step(jax.tree.map(lax.stop_gradient, m), x), module, xs)

    monkeypatch.setattr(_across_calls, "lax", types.SimpleNamespace(scan=stopping))
    with pytest.raises(
        LawError, match=r"`decay` of the gradient of the module is 0\. .*`lax.scan`"
    ):
        LAW(Case(Memory(HALF, X), (X,)))


def test_it_fails_if_forward_mode_differs(monkeypatch):
    right = jax.jvp

    def doubled(*args, **kwargs):
        out, dot = right(*args, **kwargs)
        return out, 2 * dot

    with monkeypatch.context() as patched:
        patched.setattr(_across_calls.jax, "jvp", doubled)
        with pytest.raises(LawError, match=r"in forward mode \(`jax.jvp`\)"):
            LAW(Case(Stopped(HALF, X), (X,)))
