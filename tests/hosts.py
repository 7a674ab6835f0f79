"""Hosts that run the rows of the table in a root call, and the comparison of their results."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threaded import BODIES, Acc, Body, acc, made

import oryxstate as ox

INPUTS = 0.3, -0.7


class Host(ox.Module):
    inner: Any
    step: Any = ox.static()

    def call(self, h):
        return self.step(self.inner, h)


def close(got: Any, want: Any) -> None:
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert [x.dtype for x in got] == [x.dtype for x in want]
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=3e-4, atol=3e-5)


def leaves_of(body: Body) -> tuple:
    return tuple(jax.tree.leaves(body.make()))


def both(run: Any) -> list[Any]:
    """Eager and jitted."""
    return [run, jax.jit(run)]


H = jnp.float32(0.3)
START = leaves_of(BODIES["read and write h"])


def run(step: Any, inner: Any = None, h: Any = H) -> tuple[Any, list]:
    """The outputs and the leaves of the inner module, the same eagerly and jitted."""
    host = Host(made(Acc) if inner is None else inner, step)
    y, new = ox.call_and_update(host, h)
    close(jax.jit(ox.call_and_update)(host, h), (y, new))
    return y, jax.tree.leaves(new)


def healthy() -> None:
    """The library and JAX are as they were."""
    assert not isinstance(jnp.ones(2) + 1, jax.core.Tracer)
    assert jax.jit(lambda x: x + 1)(jnp.ones(2)).tolist() == [2, 2]
    host, h = Host(made(Acc), lambda m, h: jax.jit(lambda h: m(h))(h)), jnp.float32(0.3)
    for run in both(ox.call_and_update):
        close(run(host, h), acc(tuple(jax.tree.leaves(made(Acc))), h))
    with pytest.raises(ox.EffectError, match="outside a root call"):
        host.inner.assign(total=h)
