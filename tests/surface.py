"""How is a name of JAX looked up without oryxstate, so that what has moved is named?"""

from __future__ import annotations

import functools
import importlib
from typing import Any


def resolve(name: str) -> Any:
    """The object of a dotted name; an error if it is not there."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[end:], module)
    raise ModuleNotFoundError(name)
