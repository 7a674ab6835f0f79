"""Packages of the extras, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def extra(name: str, package: str, of: str, purpose: str) -> Any:
    """Import a module of a package that is not required.

    Args:
        name: the full name of the module.
        package: the package, as pip knows it.
        of: the extra of this library that has it.
        purpose: what it is needed for.

    Raises:
        ImportError: if it is not installed, with what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {package}. Install it, `pip install oryxstate[{of}]`."
        ) from error
