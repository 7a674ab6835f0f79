"""A row of the table of transformations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from threaded import Body

XS = np.array([1.0, 0.5, -1.0, 2.0], np.float32)


class Row(NamedTuple):
    """`ours(body)` is a step, `hand(body)` the same by hand.

    Attributes:
        maps: whether the step runs under a `vmap` of `h` alone.
        modes: by which modes of differentiation JAX can differentiate the result.
        needs: by which modes the body must be differentiable.
        batches: whether a `vmap` of the result maps the body.
    """

    ours: Callable[[Body], Callable]
    hand: Callable[[Body], Callable] = lambda f: f.hand
    maps: bool = False
    modes: frozenset = frozenset({"jvp", "vjp"})
    needs: frozenset = frozenset()
    batches: bool = True

    def body(self, body: Body) -> Body:
        """The transformed body."""
        return body._replace(step=self.ours(body), hand=self.hand(body))


JVP, VJP = frozenset({"jvp"}), frozenset({"vjp"})


def loop(f, s, h, inputs):
    hs = []
    for x in inputs:
        h, s = f.hand(s, h + x)
        hs.append(h)
    return h, hs, s


def repeat(count, f, s, h):
    h, _, s = loop(f, s, h, [0] * count)
    return h, s


def hand_loop(count):
    return lambda f: partial(repeat, count, f)
