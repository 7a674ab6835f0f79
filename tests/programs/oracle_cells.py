"""The meaning of a call of one cell, `(s, n)`."""

from __future__ import annotations

from typing import Any

from programs.dual import above, sin
from programs.grammar import POSITIVE

# How often a kind accumulates.
REPEATED = {"explicit": 1, "recur": 2, "explicit loop": 2, "explicit scan": 2, "explicit fori": 2}


def step(kind: str, s: Any, x: Any, sine: Any = sin) -> tuple[Any, Any]:
    """One step of the float of a cell: `(output, new state)`."""
    if kind == "count":
        return x + 0.01 * s, s + 1.0
    if kind == "write":
        return x, 0.3 * sine(x)
    if kind == "mean":
        return 0.5 * x, 0.9 * s + 0.1 * x
    if kind == "read":
        return x + 0.1 * s, s
    new = 0.5 * s + 0.25 * x  # accumulate, rule
    return x + new, new


def member(kind: str, cell: tuple, x: Any) -> tuple[Any, tuple]:
    """A call of a cell: it counts calls, and those with positive input twice."""
    if kind == "twice":
        x, cell = member("count", cell, x)
        return member("accumulate", cell, x)
    if kind in REPEATED:
        for _ in range(REPEATED[kind]):
            x, cell = member("accumulate", cell, x)
        return x, cell
    s, n = cell
    y, s = step(kind, s, x)
    return y, (s, n if kind == "read" else n + (2 if above(x, POSITIVE) else 1))
