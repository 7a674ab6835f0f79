"""The comparison of the state that a call leaves with the state of the oracle."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from programs import keys, ours, ours_roots
from programs.dual import constant
from programs.nodes import holds

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
HUGE = 1e3  # beyond it the error of float32 is not bounded


def model(node: Any, state: dict) -> ours.Program:
    """The model of a program in this state."""
    parts = ours.Parts.of(state)
    if holds(node, "kept earlier", "kept function"):
        ours.Program(parts, ours_roots.keeper).call_and_update(jnp.float32(0))
    return ours.Program(parts, node)


def arrays(state: dict) -> list[np.ndarray]:
    """The leaves of the modules in this state, keys as their data, in float64."""
    stacks = [state["ensemble"], state["stack"], *zip(*state["pairs"], strict=True)]
    columns = [list(column) for stack in stacks for column in zip(*stack, strict=True)]
    a, b0, b1 = state["tree"]
    key = keys.draw(*state["key"])[1]
    cells = [number for cell in state["cells"] for number in cell]
    leaves = [*cells, *columns, a, [b0, b1], key, state["reduced"], state["weight"]]
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
