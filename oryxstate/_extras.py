"""Optional dependencies, imported where they are first used."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import a module that an extra of this package installs.

    Args:
        module: its full name.
        extra: the extra that it belongs to.

    Raises:
        ImportError: if it is not installed, with the command that installs it.

    Examples:
        >>> from oryxstate._extras import require
        >>> require("json", "train").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(f"{error.name}"):
            raise
        raise ImportError(
            f"this needs `{module.split('.')[0]}`, which is not installed. Install it with "
            f"`pip install 'oryxstate[{extra}]'`."
        ) from error
