"""Which modules are there in a pytree, and what is static in them?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oryxstate._module import _pytree


def modules(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every module in a pytree, outermost first, with its path as one writes it."""
    found: list[tuple[str, Any]] = []

    def look(module: Any, path: str) -> Any:
        found.append((path.removeprefix("."), module))
        _pytree.map_children(look, module, path)
        return module

    _pytree.map_modules(look, tree, "")
    yield from found


def statics(tree: Any) -> dict[str, Any]:
    """The values of all static fields, by path."""
    return {
        f"{path}.{name}".removeprefix("."): getattr(module, name)
        for path, module in modules(tree)
        for name in module.__layout__.static
    }


def has_batched_rule(tree: Any) -> bool:
    """Whether a layer in a pytree sees whole batches."""
    return any(type(module).call_batched is not None for _, module in modules(tree))
