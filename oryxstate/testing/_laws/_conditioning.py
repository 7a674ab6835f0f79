"""The change of a result when its inputs are rounded otherwise.

The error of a backward stable computation is of the size of this change, however large it is (N. J.
Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 1.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate.testing._differences import numbers

_SAMPLES = 8


def spread(run: Callable[..., Any], at: Any, epsilon: float) -> list[np.ndarray]:
    """Return how far each leaf of a result moves when inputs move by a rounding error.

    Args:
        run: a function of one pytree, in high precision.
        at: its argument; inexact arrays in it are moved.
        epsilon: the relative size of the movements.

    Returns:
        For each leaf of the result the largest distances, of its shape; infinite where a result is
        not finite, zero for leaves that are not inexact.
    """
    random = np.random.default_rng(0)
    base = _leaves(run(at))
    largest = [np.zeros(leaf.shape) for leaf in base]
    for _ in range(_SAMPLES):
        moved = jax.tree.map(lambda x: _rounded(x, epsilon, random), at)
        pairs = zip(base, _leaves(run(moved)), largest, strict=True)
        largest = [np.maximum(_apart(one, other), far) for one, other, far in pairs]
    return largest


def _leaves(tree: Any) -> list[np.ndarray]:
    return [
        numbers(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else np.zeros(leaf.shape)
        for leaf in map(jnp.asarray, jax.tree.leaves(tree))
    ]


def _rounded(x: Any, epsilon: float, random: np.random.Generator) -> Any:
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    signs = random.choice([-1.0, 1.0], np.shape(x))
    return jnp.asarray(np.asarray(x) * (1 + epsilon * signs), x.dtype)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    return np.where(np.isfinite(apart), apart, np.inf)
