"""What runs the rows of the table, and how are its results compared?"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from threaded import Body

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
