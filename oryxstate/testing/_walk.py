"""Questions about all modules in a pytree."""

from __future__ import annotations

from collections.abc import Callable
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


def written(kind: Any) -> Callable[..., Any]:
    """Return the method of a module class that its author wrote: `call` or `call_and_update`."""
    hand = [m for m in (kind.call, kind.call_and_update) if hasattr(m, "__wrapped__")]
    return hand[0] if hand else kind.call


def descendants(kind: type) -> list[type]:
    """Return the subclasses of a class, and theirs, each once."""
    below = [each for sub in kind.__subclasses__() for each in (sub, *descendants(sub))]
    return list(dict.fromkeys(below))
