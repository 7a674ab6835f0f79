"""Compiled programs that cases of one kind share.

Compiling takes most of the time of the laws. Two cases have one program if all that differs between
them are arrays: the program takes these as arguments, and JAX compiles once for their shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax


class Programs:
    """Jitted functions of calls, by the transformation and by the constants of the call."""

    def __init__(self) -> None:
        self._jitted: dict[Hashable, Callable[..., Any]] = {}

    def get(
        self, constants: Any, function: Callable[..., Any], *key: Hashable, **options: Any
    ) -> Callable[..., Any]:
        """Return a function under `jax.jit`, or the one of another case that has equal constants.

        Args:
            constants: a pytree of what the function has in its closure.
            function: the function.
            *key: what it computes; hashable.
            **options: of `jax.jit`.
        """
        leaves, structure = jax.tree.flatten(constants)
        jitted = jax.jit(function, **options)
        equal = (*key, structure, *map(_identified, leaves))
        try:
            return self._jitted.setdefault(equal, jitted)
        except (TypeError, ValueError):  # constants that have no hash, or cannot be compared
            return self._jitted.setdefault((*key, structure, *map(id, leaves)), jitted)


def _identified(constant: Any) -> Hashable:
    """Return what tells a constant from others: `-0.0 == 0.0`, but their programs differ."""
    is_number = isinstance(constant, float | complex)
    return type(constant), repr(constant) if is_number else constant
