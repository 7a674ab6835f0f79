"""The modules in a pytree, and their static values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oryxstate._module import _pytree


def modules(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield every module in a pytree, outermost first, with its path."""
    found: list[tuple[str, Any]] = []

    def look(module: Any, path: str) -> Any:
        found.append((path.removeprefix("."), module))
        _pytree.map_children(look, module, path)
        return module

    _pytree.map_modules(look, tree, "")
    yield from found


def statics(tree: Any) -> dict[str, Any]:
    """Return the values of all static fields, by path."""
    return {
        f"{path}.{name}".removeprefix("."): getattr(module, name)
        for path, module in modules(tree)
        for name in module.__layout__.static
    }


def has_batched_rule(tree: Any) -> bool:
    """Return whether a layer in a pytree sees whole batches."""
    return any(type(module).call_batched is not None for _, module in modules(tree))
