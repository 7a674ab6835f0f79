"""Names of variables, and the effect by which a jaxpr says that it touches one."""

from __future__ import annotations

from typing import NamedTuple

from oryxstate import _jax


class Name(NamedTuple):
    """A variable, by its position among the root calls that are open.

    A name says nothing about which root call it is: JAX caches jaxprs, and one that was traced in
    one root call serves the next. What belongs to one root call only carries its `identity` too
    (see `_primitives`).

    Attributes:
        level: how many root calls were open around its own (0 is the outermost); `FUNCTION` for a
            variable of a function, which belongs to whatever function runs innermost; `SOWN` or
            less for a value that a capture collects.
        path: where the module stands in the root, such as `encoder.layers[3].norm`.
        field: the field of the module, or the name of the variable.
    """

    level: int
    path: str
    field: str

    def __str__(self) -> str:
        return f"{self.path}.{self.field}" if self.path else self.field


FUNCTION = -1

SOWN = -2
"""The level of what the outermost capture collects; one lower for each capture inside."""

KEY_AXIS = "oryxstate: init_key"
"""The `vmap` axis of what depends on the `init_key` of a function that is called."""


class StateEffect(_jax.Effect):
    """Marks a jaxpr that reads or writes a variable."""

    def __init__(self, name: Name):
        self.name = name

    def __eq__(self, other: object) -> bool:
        return type(other) is StateEffect and self.name == other.name

    def __hash__(self) -> int:
        return hash((StateEffect, self.name))

    def __lt__(self, other: StateEffect) -> bool:
        return self.name < other.name

    def __repr__(self) -> str:
        return f"State[{self.name}]"


_jax.allow_effect(StateEffect)


def touches_state(jaxpr: object) -> bool:
    """Tell whether a jaxpr reads or writes any variable."""
    effects = jaxpr.effects  # type: ignore[attr-defined]
    return bool(effects) and any(isinstance(effect, StateEffect) for effect in effects)
