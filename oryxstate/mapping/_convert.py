"""A mapping applied to arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oryxstate.mapping._entries import Entries, Entry
from oryxstate.mapping._rule import Rule


def convert(arrays: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Apply a mapping to arrays by path.

    Args:
        arrays: arrays by path.
        rules: the mapping.

    Returns:
        A new dictionary of NumPy arrays.

    Raises:
        ValueError: if a rule matches nothing, or does not fit what it matches.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> mapping.convert({"old": np.arange(2)}, [mapping.Rename("old", "new")])
        {'new': array([0, 1])}
    """
    saved = {path: np.asarray(value) for path, value in arrays.items()}
    entries = {path: Entry.saved(path, x.shape, x.dtype.name) for path, x in saved.items()}
    return {path: entry.value(saved) for path, entry in follow(rules, entries).items()}


def follow(rules: Sequence[Rule], entries: Entries) -> Entries:
    """Apply each rule to what the one before it left.

    Raises:
        TypeError: for what is not a rule.
        ValueError: if a rule does not apply.
    """
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(
                f"a mapping is a sequence of rules such as mapping.Rename('a.**', 'b.**'), "
                f"but {rule!r} is in it."
            )
        entries = rule.apply(entries)
    return entries
