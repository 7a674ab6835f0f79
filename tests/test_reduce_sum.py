"""A sum counts what each example adds to the state that it found (S6)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import Host, both, close
from jax import lax
from jaxtyping import Array

import oryxstate as ox

XS = np.array([1.0, 2.0, 4.0], np.float32)
START = jnp.float32(100)


class Sum(ox.Module):
    total: Array = ox.state(reduce=jnp.sum)

    def call(self, x):
        self.assign(total=self.total + x)
        return x * self.total


class NumPySum(ox.Module):
    total: Array = ox.state(reduce=np.sum)

    def call(self, x):
        self.assign(total=self.total + x)
        return x * self.total


class Reset(ox.Module):
    """Writes what depends on the example, then the same for all."""

    total: Array = ox.state(reduce=jnp.sum)

    def call(self, x):
        self.assign(total=self.total + x)
        self.assign(total=jnp.float32(7))
        return x


class Count(ox.Module):
    count: Array = ox.state(reduce=jnp.sum)

    def call(self, x):
        self.assign(count=self.count + (x > 1).astype(jnp.int32))
        return x


def mapped(m, h):
    return jax.vmap(m)(h * XS)


def mapped_twice(m, h):
    return jax.vmap(jax.vmap(lambda x: m(x)))(h * jnp.stack([XS, 10 * XS]))


def mapped_after(m, h):
    jax.vmap(m)(h * XS)
    return jax.vmap(m)(h * XS)


def written_twice(m, h):
    return jax.vmap(lambda x: m(m(x) * 0 + x))(h * XS)


def in_scan(m, h):
    return lax.scan(lambda c, x: (c, jax.vmap(m)(x)), h, h * jnp.stack([XS, 10 * XS]))[1]


def in_jit(m, h):
    return jax.vmap(jax.jit(lambda x: m(x)))(h * XS)


PROGRAMS: dict[str, tuple[Any, float]] = {
    "vmap": (mapped, 7.0),
    "two vmaps": (mapped_twice, 77.0),
    "one vmap after another": (mapped_after, 14.0),
    "two writes": (written_twice, 14.0),
    "vmap in scan": (in_scan, 77.0),
    "jit in vmap": (in_jit, 7.0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_the_examples_add(name):
    step, added = PROGRAMS[name]
    for run in both(ox.call_and_update):
        close(run(Host(Sum(START), step), jnp.float32(1))[1], START + jnp.float32(added))


def test_by_the_sum_of_numpy():
    new = ox.update(Host(NumPySum(START), mapped), jnp.float32(1))
    close(new, START + 7)


def test_the_output_of_an_example_counts_its_own():
    for run in both(ox.call):
        close(run(Host(Sum(START), mapped), jnp.float32(1)), XS * (100 + XS))


def test_a_write_of_all_examples_after_one_of_each():
    """Each takes back what it added, and adds the difference to what is written."""
    for run in both(ox.call_and_update):
        new = run(Host(Reset(START), mapped), jnp.float32(1))[1]
        close(new, START + 3 * (7 - START))


def test_of_integers():
    for run in both(ox.call_and_update):
        _, new = run(Host(Count(jnp.int32(10)), mapped), jnp.float32(1))
        close(new, jnp.int32(12))


def test_gradient():
    """With respect to the state before, and to what the examples add."""

    def total(start, h):
        return ox.update(Host(Sum(start), mapped_after), h).inner.total

    for run in both(jax.grad(total, (0, 1))):
        close(run(START, jnp.float32(1)), (jnp.float32(1), jnp.float32(14)))


def test_along_another_axis():
    xs = np.array([[1.0, 2.0, 4.0], [-1.0, 0.5, 0.25]], np.float32)

    class Last(ox.Module):
        x: Array = ox.state(reduce=lambda values, axis: jnp.take(values, -1, axis))

        def call(self, x):
            self.assign(x=x)
            return x

    host = Host(Last(jnp.zeros(2)), lambda m, xs: jax.vmap(m, 1, 1)(xs))
    for run in both(ox.call_and_update):
        close(run(host, xs), (xs, xs[:, -1]))
