"""Which modules are meant, by path, class or predicate, as they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oryxstate._select import _patterns

Selection = str | type | Callable[[str, Any], bool] | Sequence["Selection"]


class Selected:
    """Modules that a selection names; equal for equal selections, so that JAX's caches hold.

    Attributes:
        parts: the paths, classes and predicates.
    """

    def __init__(self, selection: Any):
        self.parts = tuple(_parts(selection))
        self._patterns = [_patterns.segments(part) for part in self.parts if isinstance(part, str)]

    def holds(self, path: str, module: Any) -> bool:
        """Tell whether a module at a path is meant."""
        keys = _patterns.keys_of(path) if path else ()
        return any(
            _patterns.matches(pattern, keys, exactly=True) for pattern in self._patterns
        ) or any(
            isinstance(module, part) if isinstance(part, type) else part(path, module)
            for part in self.parts
            if not isinstance(part, str)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selected) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


def _parts(selection: Any) -> list:
    if selection is None:
        return []
    if isinstance(selection, str | type) or callable(selection):
        return [selection]
    if isinstance(selection, list | tuple):
        return [part for each in selection for part in _parts(each)]
    raise TypeError(
        "modules are selected by a path such as 'blocks.**.attention', a class, a function of "
        f"`(path, module)`, or a list of these, got {selection!r}."
    )


def nearest(selected: Selected, seen: Sequence[str]) -> str:
    """Return what the author of a path may have meant, of the paths that were called."""
    strings = [part for part in selected.parts if isinstance(part, str)]
    found = [name for text in strings for name in _patterns.near_misses(text, list(seen))]
    if found:
        return f"Did you mean {' or '.join(map(repr, dict.fromkeys(found)))}?"
    shown = ", ".join(map(repr, list(seen)[:8])) + (", ..." if len(seen) > 8 else "")
    return f"Modules that were called: {shown or 'none'}."
