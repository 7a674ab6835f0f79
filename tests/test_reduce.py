"""Writes of the examples of a `vmap`, and how they combine (S6)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import Host, both, close
from jax import lax
from jaxtyping import Array

import oryxstate as ox

XS = np.array([1.0, 2.0, 4.0], np.float32)


class Mean(ox.Module):
    total: Array = ox.state(reduce=jnp.mean)
    peak: Array = ox.state(reduce=jnp.max)

    def call(self, x):
        self.assign(total=x, peak=jnp.maximum(self.peak, x))
        return x


def test_reduce():
    def step(m, h):
        ys = jax.vmap(m)(h * XS)
        nested = jax.vmap(jax.vmap(lambda x: m(x)))((h * XS).reshape(3, 1))
        return ys, nested, jax.vmap(lambda x: lax.cond(x < 3, m, lambda x: -x, x))(h * XS)

    host, h = Host(Mean(jnp.float32(9), jnp.float32(0)), step), jnp.float32(1)
    for run in both(ox.call_and_update):
        (ys, nested, chosen), new = run(host, h)
        close(ys, XS)
        close(nested, XS[:, None])
        close(chosen, jnp.array([1.0, 2.0, -4.0]))
        # The cond leaves 1 and 2 where it writes, and where it does not 7 / 3, the mean before it.
        close(new, (jnp.float32((1 + 2 + 7 / 3) / 3), jnp.float32(4)))


class Last(ox.Module):
    x: Array = ox.state(reduce=jnp.sum)

    def call(self, x):
        self.assign(x=x)
        return x


def test_examples_along_another_axis():
    """They combine along the axis that the examples have, whichever that is."""
    xs = np.array([[1.0, 2.0, 4.0], [-1.0, 0.5, 0.25]], np.float32)
    host = Host(Last(jnp.zeros(2)), lambda m, xs: jax.vmap(m, 1, 1)(xs))
    for run in both(ox.call_and_update):
        close(run(host, xs), (xs, xs.sum(1)))


class Decayed(ox.Module):
    total: Array = ox.state(reduce=jnp.mean)

    def call(self, x):
        self.assign(total=0.5 * self.total + x)
        return jnp.sin(self.total)


def twice(m, x):
    return m(m(x)) * m.total


def by_hand(total, x):
    """One example: its output, and the state that it leaves."""
    first = 0.5 * total + x
    second = 0.5 * first + jnp.sin(first)
    return jnp.sin(second) * second, second


WITHIN = {
    "plain": twice,
    "jit": lambda m, x: jax.jit(lambda x: twice(m, x))(x),
    "jit of each": lambda m, x: jax.jit(m)(jax.jit(m)(x)) * m.total,
    "checkpoint of one": lambda m, x: m(jax.checkpoint(m)(x)) * m.total,
    "scan": lambda m, x: lax.scan(lambda h, _: (m(h), None), x, None, length=2)[0] * m.total,
    "root": lambda m, x: _explicitly(m, x),
}


def _explicitly(m, x):
    y, new = m.call_and_update(x)
    m.assign(total=new.total)
    return m(y) * m.total


@pytest.mark.parametrize("name", WITHIN)
def test_an_example_reads_what_it_wrote(name):
    """Whatever stands between the write and the read."""

    def step(m, h):
        return jax.vmap(lambda x: WITHIN[name](m, x))(h * XS)

    ys, totals = jax.vmap(by_hand, (None, 0))(jnp.float32(9), XS)
    for run in both(ox.call_and_update):
        out, new = run(Host(Decayed(jnp.float32(9)), step), jnp.float32(1))
        close(out, ys)
        close(new, totals.mean())


@pytest.mark.parametrize("name", [name for name in WITHIN if name != "root"])
def test_gradient_of_what_an_example_reads_back(name):
    slopes = jax.vmap(jax.grad(by_hand, 1, has_aux=True), (None, 0))(jnp.float32(9), XS)[0]
    steps = [
        lambda m, h: jax.vmap(jax.grad(lambda x: WITHIN[name](m, x)))(h * XS),
        lambda m, h: jax.grad(lambda xs: jax.vmap(lambda x: WITHIN[name](m, x))(xs).sum())(h * XS),
    ]
    for step in steps:
        for run in both(ox.call_and_update):
            out, new = run(Host(Decayed(jnp.float32(9)), step), jnp.float32(1))
            close(out, slopes)
            close(new, jax.vmap(by_hand, (None, 0))(jnp.float32(9), XS)[1].mean())


def test_a_vmap_starts_from_the_reduced_state():
    def step(m, h):
        jax.vmap(m)(h * XS)
        return m.total, jax.vmap(lambda x: m.total + 0 * x)(XS)

    mean = jnp.mean(4.5 + XS)
    for run in both(ox.call):
        close(run(Host(Decayed(jnp.float32(9)), step), jnp.float32(1)), (mean, jnp.full(3, mean)))


def test_reduce_of_another_shape():
    class Wrong(ox.Module):
        total: Array = ox.state(reduce=lambda values, axis: values)

        def call(self, x):
            self.assign(total=x)

    for run in both(ox.call):
        with pytest.raises(
            ox.EffectError, match=r"`reduce` of state 'inner.total'.*\[3\] into \[\]"
        ):
            run(Host(Wrong(jnp.float32(0)), lambda m, h: jax.vmap(m)(h * XS)), jnp.float32(1))
