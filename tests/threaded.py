"""Stateful steps to be transformed, each with its state threaded by hand.

By hand, the state is the flat tuple of the leaves of the module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

import oryxstate as ox


class Body(NamedTuple):
    """A step `(module, h) -> h` of scalars, and `(leaves, h) -> (h, leaves)` by hand.

    `peek` reads the module, `hand_peek` the leaves. `depends` says whether what is written depends
    on `h`, so that a `vmap` over `h` alone must refuse it.
    """

    make: Callable[[], Any]
    step: Callable[[Any, Any], Any]
    hand: Callable[[tuple, Any], tuple[Any, tuple]]
    peek: Callable[[Any], Any] = lambda m: m()
    hand_peek: Callable[[tuple], Any] = lambda s: s[1]
    depends: bool = True


class Base(ox.Module):
    scale: Array = ox.param()
    total: Array = ox.state()
    count: Array = ox.state()

    def call(self, h=None):
        return self.total if h is None else self.step(h)


def made(kind: type[Base], scale: float = 0.5, total: float = 0.25, count: int = 3) -> Any:
    return kind(jnp.float32(scale), jnp.float32(total), jnp.int32(count))


class Reader(Base):
    def step(self, h):
        return self.scale * h + self.total


def reader(s, h):
    return s[0] * h + s[1], s


class Writer(Base):
    def step(self, h):
        self.assign(total=7)  # weakly typed: cast to the dtype of the field
        return self.scale * h


def writer(s, h):
    return s[0] * h, (s[0], jnp.float32(7), s[2])


class Last(Base):
    def step(self, h):
        self.assign(total=h)
        return self.scale * h


def last(s, h):
    return s[0] * h, (s[0], h, s[2])


class Counter(Base):
    def step(self, h):
        self.assign(count=self.count + 1)
        return self.scale * h + 0.1 * self.count.astype(h.dtype)


def counter(s, h):
    count = s[2] + 1
    return s[0] * h + 0.1 * count.astype(h.dtype), (s[0], s[1], count)


class Acc(Base):
    def step(self, h):
        self.assign(total=0.5 * self.total + jnp.sin(h), count=self.count + 1)
        return self.scale * h + jnp.cos(self.total)


def acc(s, h):
    total = 0.5 * s[1] + jnp.sin(h)
    return s[0] * h + jnp.cos(total), (s[0], total, s[2] + 1)


class Rule(Base):
    def call_and_update(self, h=None):
        if h is None:
            return self.total, self
        total = 0.5 * self.total + jnp.sin(h)
        new = self.replace(total=total, count=self.count + 1)
        return self.scale * h + jnp.cos(total), new


class Two(ox.Module):
    a: Acc
    b: Last

    def call(self, h=None):
        if h is None:
            return self.a.total
        return self.b(self.a(h)) + self.a.total


def two(s, h):
    h, a = acc(s[:3], h)
    h, b = last(s[3:], h)
    return h + a[1], (*a, *b)


def twice(s, h):
    h, s = acc(s, h)
    return acc(s, h)


class Middle(ox.Module):
    parts: dict[str, list[Acc]]
    calls: Array = ox.state()

    def call(self, h):
        self.assign(calls=self.calls + 1)
        for part in self.parts["x"]:
            h = part(h)
        return h


class Outer(ox.Module):
    middle: Middle
    rule: Rule

    def call(self, h=None):
        if h is None:
            return self.rule()
        h = self.rule(self.middle(h))
        return h + 0.1 * self.middle.parts["x"][1].total * self.middle.calls.astype(h.dtype)


def nested(s, h):
    # The leaves: two Accs, the calls, the Rule.
    h, a = acc(s[:3], h)
    h, b = acc(s[3:6], h)
    h, rule = acc(s[7:], h)
    calls = s[6] + 1
    return h + 0.1 * b[1] * calls.astype(h.dtype), (*a, *b, calls, *rule)


def make_nested() -> Outer:
    middle = Middle({"x": [made(Acc), made(Acc, 0.75)]}, jnp.int32(0))
    return Outer(middle, made(Rule, 1.5, -0.5))


def stacked(*modules: Any) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *modules)


def make_ensemble() -> Acc:
    return stacked(made(Acc), made(Acc, 0.75, -0.5, 5))


def ensemble_step(m, h):
    return jax.vmap(lambda m, h: m(h), (0, None))(m, h).sum()


def ensemble(s, h):
    pairs = [acc(tuple(leaf[i] for leaf in s), h) for i in range(2)]
    return sum(h for h, _ in pairs), stacked(*(s for _, s in pairs))


def call(m, h):
    return m(h)


BODIES: dict[str, Body] = {
    "read": Body(lambda: made(Reader), call, reader, depends=False),
    "write": Body(lambda: made(Writer), call, writer, depends=False),
    "write h": Body(lambda: made(Last), call, last),
    "count": Body(lambda: made(Counter), call, counter, depends=False),
    "read and write h": Body(lambda: made(Acc), call, acc),
    "rule": Body(lambda: made(Rule), call, acc),
    "two modules": Body(lambda: Two(made(Acc), made(Last, 0.75)), call, two),
    "called twice": Body(lambda: made(Acc), lambda m, h: m(m(h)), twice),
    "nested": Body(make_nested, call, nested, hand_peek=lambda s: s[8]),
    "ensemble": Body(
        make_ensemble,
        ensemble_step,
        ensemble,
        lambda m: jax.vmap(lambda m: m())(m).sum(),
        lambda s: s[1].sum(),
    ),
}


# What is written depends on `x`, and so does what is read back.


class Times(Acc):
    def call(self, x=None):
        if x is None:
            return self.total
        put(self, x)
        return x


def put(m, x):
    m.assign(total=m() * x)


def through(m, x):
    """`x` reaches the result through the state alone."""
    put(m, jnp.sin(x))
    return m() ** 2


def hand_through(total, x):
    total = total * jnp.sin(x)
    return total**2, total
