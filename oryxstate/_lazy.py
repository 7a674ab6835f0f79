"""Modules that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Lazy:
    """A module that is imported when an attribute of it is first read.

    Args:
        name: the full name of the module.

    Examples:
        >>> from oryxstate._lazy import Lazy
        >>> json = Lazy("json")
        >>> json.dumps([1])
        '[1]'
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def attributes(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package that imports some of its names lazily.

    Args:
        package: its full name.
        homes: the modules that these names are from, each with its names; a module without any is
            itself a name of the package.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    home_of.update({home.rpartition(".")[2]: home for home, names in homes.items() if not names})

    def __getattr__(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = importlib.import_module(home_of[name])
        value = getattr(home, name) if homes[home_of[name]] else home
        vars(sys.modules[package])[name] = value  # the next time it is found without this function
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return __getattr__, __dir__
