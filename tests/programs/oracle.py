"""The oracle: a program in Python's own loops and floats (NumPy's float64), without JAX.

The state is threaded by hand, a dictionary of tuples of numbers:

    cells       (s, n) of each cell
    ensemble    (s, n) of each member
    stack       (s, n) of each layer
    pairs       two such cells of each layer
    tree        (a, b0, b1)
    reduced     s of the part whose examples are averaged
    key         the seed, and how often the key was split
    weight      the learned parameter
"""

from __future__ import annotations

import math
from typing import Any

from programs import keys, oracle_stacks, oracle_transformations
from programs.dual import MeaninglessError, above, constant, sin
from programs.grammar import BRANCH, PLAIN, SHIFTS, Cell, Ensemble, Host, Other, Stack, Two
from programs.oracle_cells import member


def plain(kind: str, x: Any, weight: Any, sine: Any = sin) -> Any:
    """A function without state."""
    if kind == "sin":
        return sine(x)
    if kind == "weight":
        return weight * x
    return 0.5 * x + 0.25 if kind == "affine" else 0.1 * x * x


def run(node: Any, state: dict, x: Any) -> tuple[Any, dict]:
    """Run a program: `(output, new state)`."""
    if isinstance(node, Cell):
        return _cell(node, state, x)
    if isinstance(node, Other):
        return _other(node.kind, state, x)
    if isinstance(node, Ensemble):
        ends = [member(node.kind, m, x + d) for m, d in zip(state["ensemble"], SHIFTS, strict=True)]
        return sum(y for y, _ in ends) * (1 / 3), {**state, "ensemble": tuple(m for _, m in ends)}
    if isinstance(node, Stack):
        return oracle_stacks.call(node, state, x)
    if isinstance(node, Host):
        return _host(node.kind, state, x), state
    if isinstance(node, Two):
        return _two(node, state, x)

    def body(state, x):
        return run(node.body, state, x)

    return oracle_transformations.within(node.kind, body, state, x, node.number)


def _cell(node, state, x):
    cells = state["cells"]
    y, cell = member(node.kind, cells[node.index], x)
    return y, {**state, "cells": (*cells[: node.index], cell, *cells[node.index + 1 :])}


def _other(kind, state, x):
    if kind in PLAIN:
        return plain(kind, x, state["weight"]), state
    if kind in ("tree", "tree read"):
        a, b0, b1 = state["tree"]
        y = x + 0.1 * a + 0.2 * b0
        return y, state if kind == "tree read" else {**state, "tree": (0.5 * a + b0, b1, sin(x))}
    if kind == "key":
        seed, count = state["key"]
        return x + 0.1 * keys.draw(seed, count)[0], {**state, "key": (seed, count + 1)}
    for _ in range(2 if kind == "reduced twice" else 1):
        new = 0.5 * state["reduced"] + x
        state, x = {**state, "reduced": new}, 0.5 * x + 0.1 * new
    return x, state


def _host(kind, state, x):
    """What a callback returns is a constant; one that writes has no meaning where it is used."""
    door, use = kind.split()
    if use == "write" and door == "debug":
        raise MeaninglessError
    if door == "debug":
        return x
    if use == "write":
        return x + math.nan  # a derivative does not need it
    cell = state["cells"][0]
    y = cell[0] if use == "read" else member("accumulate", cell, x)[0]
    return x + 0.1 * constant(y)


def _two(node, state, x):
    if node.kind in ("cond", "cond closure", "cond argument", "switch"):
        return run(node.first if above(x, BRANCH) else node.second, state, x)
    if node.kind == "switch state":  # three branches; the last does nothing
        s = state["cells"][0][0]
        if above(s, 1.5):
            return x, state
        return run(node.second if above(s, 0.45) else node.first, state, x)
    y, state = run(node.first, state, x)
    z, state = run(node.second, state, y if node.kind == "then" else x)
    return (z if node.kind == "then" else y + z), state
