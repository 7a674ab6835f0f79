"""Undocumented names of Hypothesis that this package uses.

Each is used in one function. They exist in the releases from 6.130 to 6.170; a test calls them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies._internal import types as _types
from hypothesis.vendor import pretty as _pretty


def resolve_types(package: str, resolver: Callable[[Any], st.SearchStrategy[Any] | None]) -> None:
    """Let `st.from_type` ask `resolver` for every type that nobody registered.

    `st.register_type_strategy` covers one type and not its subclasses
    (https://github.com/HypothesisWorks/hypothesis/issues/3634).
    """
    _types._global_extra_lookup[package] = resolver


def is_registered(kind: type) -> bool:
    """Return whether the user gave `st.register_type_strategy` a strategy for this class."""
    return kind in _types._global_type_lookup


def print_as(kind: type, show: Callable[[Any], str]) -> None:
    """Set how Hypothesis prints the values of a class in reports of examples.

    Hypothesis looks for a printer registered by class name before it prints dataclasses its own
    way.
    """
    _pretty.for_type_by_name(
        kind.__module__, kind.__name__, lambda value, printer, cycle: printer.text(show(value))
    )


def test(
    function: Callable[[Any], None],
    strategy: st.SearchStrategy[Any],
    options: settings,
    seed: int | None,
    key: str = "",
) -> Callable[[], None]:
    """Return a test of drawn values.

    Args:
        function: called with each value.
        strategy: of the values.
        options: the settings of the test.
        seed: of the draws; None for what Hypothesis does by itself.
        key: what tells the test from others of this function in the database of failures.
    """
    found: Any = options(hypothesis.given(strategy)(function))
    if seed is not None:  # `hypothesis.seed` would also turn off the database
        found._hypothesis_internal_use_seed = seed
    found.hypothesis.inner_test._hypothesis_internal_add_digest = key.encode()
    return found


def changed_settings(test: Callable[..., Any]) -> dict[str, Any]:
    """Return those settings of `@hypothesis.settings(...)` on a test that are not the defaults."""
    given = getattr(test, "_hypothesis_internal_use_settings", None)
    if given is None:
        return {}
    names = [name for name in vars(settings) if isinstance(vars(settings)[name], property)]
    values = {name: (getattr(given, name), getattr(settings.default, name)) for name in names}
    return {name: value for name, (value, default) in values.items() if value != default}


def accept_settings(test: Callable[..., Any]) -> None:
    """Let `@hypothesis.settings` be on a test without `@given`, which Hypothesis refuses.

    Its pytest plugin takes such a test for one whose `@given` was forgotten.
    """
    vars(test).pop("_hypothesis_internal_settings_applied", None)
