"""Which names of Hypothesis that it does not document are used, and for what?

Each stands in one function. They are there in the releases from 6.130 to 6.170; a test calls all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies._internal import types as _types
from hypothesis.vendor import pretty as _pretty


def resolve_types(package: str, resolver: Callable[[Any], st.SearchStrategy[Any] | None]) -> None:
    """Ask `resolver` in `st.from_type` for every type that nobody registered.

    `st.register_type_strategy` is for one type and none of its subclasses
    (https://github.com/HypothesisWorks/hypothesis/issues/3634).
    """
    _types._global_extra_lookup[package] = resolver


def is_registered(kind: type) -> bool:
    """Whether the user gave `st.register_type_strategy` a strategy for this class."""
    return kind in _types._global_type_lookup


def print_as(kind: type, show: Callable[[Any], str]) -> None:
    """Print the values of a class in this way where an example is reported.

    Hypothesis asks first for a printer of the class by its name, and only then prints it as it
    prints dataclasses.
    """
    _pretty.for_type_by_name(
        kind.__module__, kind.__name__, lambda value, printer, cycle: printer.text(show(value))
    )
