"""The state that a program begins with, and the comparison of what it leaves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from programs import keys, ours, parts
from programs.dual import constant

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
HUGE = 1e3  # beyond it the error of float32 is not bounded


def start(shift: float) -> dict:
    """A state to begin with, as the oracle writes it."""
    cells = ((0.2, 0), (-0.4, 1), (1.0, 2), (0.3, 3), (-0.1, 4))
    return {
        "cells": tuple((s + shift, n) for s, n in cells),
        "ensemble": tuple((s + shift, n) for s, n in ((0.1, 0), (0.2, 5), (0.3, 9))),
        "tree": (0.1 + shift, 0.2, -0.3 * shift),
        "reduced": 0.4 - shift,
        "key": (int(10 * shift), 0),
        "weight": 0.8,
    }


def _scalars(pairs):
    return [(jnp.float32(s), jnp.int32(n)) for s, n in pairs]


def model(node: Any, state: dict) -> ours.Program:
    """The modules in this state."""
    f = jnp.float32
    cells = _scalars(state["cells"])
    members = [
        jnp.stack(xs)
        for xs in zip(*[(f(s), jnp.int32(n)) for s, n in state["ensemble"]], strict=True)
    ]
    a, b0, b1 = state["tree"]
    seed, count = state["key"]
    assert count == 0
    modules = ours.Parts(
        cells=(parts.Cell(*cells[0]), parts.RuleCell(*cells[1]), parts.Cell(*cells[2])),
        more={"cells": [parts.Cell(*cells[3])]},
        holder=parts.Holder(parts.Cell(*cells[4])),
        ensemble=parts.Cell(*members),
        tree=parts.Tree({"a": f(a), "b": jnp.array([b0, b1], f)}),
        key=parts.Key(jax.random.key(seed)),
        reduced=parts.Reduced(f(state["reduced"])),
        weight=f(state["weight"]),
    )
    return ours.Program(modules, node)


def arrays(state: dict) -> list[np.ndarray]:
    """The leaves of the modules in this state, keys as their data, in float64."""
    s, n = (list(column) for column in zip(*state["ensemble"], strict=True))
    a, b0, b1 = state["tree"]
    key = keys.draw(*state["key"])[1]
    cells = [number for cell in state["cells"] for number in cell]
    leaves = [*cells, s, n, a, [b0, b1], key, state["reduced"], state["weight"]]
    return [np.array(_constants(leaf)) for leaf in leaves]


def _constants(leaf):
    return [constant(x) for x in leaf] if isinstance(leaf, (list, tuple)) else constant(leaf)


def compare(model: Any, before: Any, state: dict) -> None:
    """The state that a call left, and the structure, shapes and types of the model."""
    assert jax.tree.structure(model) == jax.tree.structure(before)
    leaves = jax.tree.leaves(model)
    assert [_type(x) for x in leaves] == [_type(x) for x in jax.tree.leaves(before)]
    for leaf, expected in zip(leaves, arrays(state), strict=True):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        np.testing.assert_allclose(leaf, expected, **CLOSE)


def _type(x):
    return x.shape, x.dtype, getattr(x, "weak_type", False)
