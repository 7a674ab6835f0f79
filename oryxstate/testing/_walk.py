"""Questions about all modules in a pytree."""

from __future__ import annotations

from typing import Any

from oryxstate._module._pytree import modules


def statics(tree: Any) -> dict[str, Any]:
    """Collect the values of all static fields, by path."""
    return {
        f"{path}.{name}".removeprefix("."): getattr(module, name)
        for path, module in modules(tree)
        for name in module.__layout__.static
    }


def has_batched_rule(tree: Any) -> bool:
    """Tell whether a layer in a pytree sees whole batches."""
    return any(type(module).call_batched is not None for _, module in modules(tree))
