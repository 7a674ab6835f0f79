"""The transformations that are compared, each with the right result by hand, in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

SCALE = 0.5
XS = np.array([1.0, 0.5, -1.0, 2.0], np.float32)
INPUTS = 0.3, -0.7  # of two calls in a row: `cond` and `switch` take another branch each time


class State(NamedTuple):
    """What the layer keeps; `slope` is the derivative of `total` with respect to the input."""

    total: Any = 0.25
    count: Any = 3
    slope: Any = 0.0


def layer(s: State, h: Any, dh: Any = 1.0, *, through: bool) -> tuple[Any, Any, State]:
    """One call by hand: the output, its slope where the input has slope `dh`, the state after it.

    With `through`, what is written has a derivative, as in a recurrent cell. Otherwise it is data,
    as running statistics are.
    """
    total = 0.5 * s.total + np.sin(h)
    slope = 0.5 * s.slope + np.cos(h) * dh if through else 0.0
    y = h * (SCALE + np.cos(total))
    dy = dh * (SCALE + np.cos(total)) - h * np.sin(total) * slope
    return y, dy, State(total, s.count + 1, slope)


class Row(NamedTuple):
    """What a transformation should give.

    Attributes:
        right: from the layer, a state and an input to the output and the state after it; None
            where there is no right answer, so that refusing is right.
        through: whether what the layer writes has a derivative.
        start: the state before the first call.
        devices: how many devices hold the layer.
    """

    right: Callable[[Callable, State, Any], tuple[Any, State]] | None
    through: bool = False
    start: State = State()
    devices: int = 1


def repeated(count, f, s, h):
    for _ in range(count):
        h, _, s = f(s, h)
    return h, s


once = partial(repeated, 1)


def scan(f, s, h):
    total = 0.0
    for x in XS:
        h, _, s = f(s, h + x)
        total += x * h
    return h + total, s


def predicate(f, s, h):
    while True:
        y, _, s = f(s, h)
        if not (y < 9 and h < 2):
            return h, s
        h = h + 1


def cond(f, s, h):
    return once(f, s, h) if h > 0 else (2 * h, s)


def switch(f, s, h):
    return repeated(2 if h > 0 else 1, f, s, h)


def slope(count, f, s, h):
    dh = 1.0
    for _ in range(count):
        h, dh, s = f(s, h, dh)
    return dh, s


def value_and_slope(f, s, h):
    y, dy, s = f(s, h)
    return y + dy, s


def value_aux_and_slope(f, s, h):
    y, dy, s = f(s, h)
    return y + 2 * y + dy, s


def value_and_rule(f, s, h):
    y, _, s = f(s, h)
    return y + 3, s  # the rule says 3, which is not the derivative: one sees that it is used


def unused(output, f, s, h):
    return output(h), f(s, h)[2]


def mapped_alike(f, s, h):
    y, _, s = f(s, h)
    return XS.sum() * y, s


def ensemble(f, s, h):
    y, _, s = f(s, h)
    return y.sum(), s


def sharded(f, s, h):
    y, _, s = f(s, (h + XS).mean())
    return (y * (h + XS)).mean(), s


MEMBERS = State(np.array([0.25, -0.5], np.float32), np.array([3, 5], np.int32))

ROWS: dict[str, Row] = {
    "jit": Row(once),
    "jit, called twice": Row(partial(repeated, 2)),
    "scan": Row(scan),
    "scan, no iteration": Row(lambda f, s, h: (h, s)),
    "fori_loop": Row(partial(repeated, 3)),
    "while_loop": Row(partial(repeated, 3)),
    "while_loop, a write in the predicate": Row(predicate),
    "cond": Row(cond),
    "switch": Row(switch),
    "checkpoint": Row(once),
    "grad": Row(partial(slope, 1)),
    "grad of checkpoint": Row(partial(slope, 1)),
    "grad of scan": Row(partial(slope, 3)),
    "grad, through state": Row(partial(slope, 1), through=True),
    "grad of checkpoint, through state": Row(partial(slope, 1), through=True),
    "grad of scan, through state": Row(partial(slope, 3), through=True),
    "value_and_grad with aux": Row(value_aux_and_slope),
    "jvp": Row(value_and_slope),
    "vjp": Row(value_and_slope),
    "linearize": Row(value_and_slope),
    "custom_jvp": Row(value_and_rule),
    "custom_vjp": Row(value_and_rule),
    "custom_linear_solve": Row(partial(unused, lambda h: h / 2)),
    "vmap, the same write for all": Row(mapped_alike),
    "vmap, a write for each example, to be refused": Row(None),
    "vmap over an ensemble": Row(ensemble, start=MEMBERS),
    "shard_map on 2 devices": Row(sharded, devices=2),
    "eval_shape": Row(lambda f, s, h: (2 * h, s)),
}


class Programs(dict[str, Callable]):
    """Programs by the row that they stand for: `@programs("scan")`."""

    def __call__(self, *rows: str) -> Callable[[Callable], Callable]:
        assert set(rows) <= set(ROWS), rows

        def register(program: Callable) -> Callable:
            self.update(dict.fromkeys(rows, program))
            return program

        return register
