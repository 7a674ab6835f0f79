"""Releases of JAX: those that the tests ran on, and what to do about any other.

An older release is refused. A release that no test has seen is examined by the import: its names
before they are used (`_surface`), and some programs with state afterwards (`_selftest`). A file in
the user's cache folder remembers that a release has passed.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from oryxstate import _surface

# `nox -s matrix` runs on each of them.
TESTED = ("0.10.0", "0.10.1", "0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1")
OLDEST, NEWEST = TESTED[0], TESTED[-1]

# New implementations behind flags that have no rule here, so that updates would be lost.
UNFINISHED = {"jax_scan3": "lax.scan"}


def check_before_the_import(config: Any) -> None:
    """Refuse a JAX on which the library cannot work, before anything of it is missing.

    Raises:
        ImportError: naming the release and what to install, or the flag, or what has moved.
    """
    if jax.__version_info__ < _numbers(OLDEST):
        raise ImportError(
            f"oryxstate works with JAX {OLDEST} and later, but JAX {jax.__version__} is installed. "
            f"Run `pip install 'jax>={OLDEST}'`."
        )
    for flag, function in UNFINISHED.items():
        if getattr(config, flag, False):
            raise ImportError(
                f"oryxstate does not work with {flag.upper()}=1, an implementation of `{function}` "
                f"that JAX has not finished. Unset it, or `jax.config.update({flag!r}, False)` "
                "before the import."
            )
    if to_be_examined():
        _refuse_if(_surface.broken())


def check_after_the_import(examine: Callable[[], Iterable[str]]) -> None:
    """Run the self-test on a JAX that no test has seen, and warn if it passes.

    Args:
        examine: says what is wrong.

    Raises:
        ImportError: if anything is wrong.
    """
    if not to_be_examined():
        return
    _refuse_if(examine())
    _remember()
    warnings.warn(
        f"oryxstate has not been tested with JAX {jax.__version__}, only with releases up to "
        f"{NEWEST}. Its self-test has passed, so it will most likely work; if it does not, run "
        f"`pip install {PIN}`, and report it.",
        stacklevel=3,
    )


PIN = f"'jax>={OLDEST},<={NEWEST}'"


def _refuse_if(wrong: Iterable[str]) -> None:
    found = list(wrong)
    if found:
        raise ImportError(
            f"oryxstate does not work with JAX {jax.__version__}, a release that it was not tested "
            f"with: {'; '.join(found)}. Install a JAX that it was tested with, `pip install {PIN}`,"
            " or a newer oryxstate."
        )


def to_be_examined() -> bool:
    """Tell whether this JAX has not been tested, nor passed the self-test here before."""
    if jax.__version_info__ in map(_numbers, TESTED) and not _is_development(jax.__version__):
        return False
    record = _record()
    try:
        return record is None or not record.exists()
    except OSError:
        return True


def _is_development(version: str) -> bool:
    return not all(part.isdigit() for part in version.split("+")[0].split("."))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# What is remembered -------------------------------------------------------------------------------


def cache_folder(platform: str, environment: Mapping[str, str], home: pathlib.Path) -> pathlib.Path:
    """Return the folder in which programs of a user may keep what they can find out again."""
    if platform == "win32":
        base = environment.get("LOCALAPPDATA") or home / "AppData" / "Local"
        return pathlib.Path(base) / "oryxstate" / "Cache"
    if platform == "darwin":
        return home / "Library" / "Caches" / "oryxstate"
    given = environment.get("XDG_CACHE_HOME", "")
    base = pathlib.Path(given) if os.path.isabs(given) else home / ".cache"
    return base / "oryxstate"


def _record() -> pathlib.Path | None:
    """Return the file that records that this oryxstate passed on this JAX, None without a place.

    An oryxstate that is not installed may change while its version stays the same.
    """
    try:
        ours = importlib.metadata.version("oryxstate")
        home = pathlib.Path.home()
    except (importlib.metadata.PackageNotFoundError, RuntimeError):
        return None
    flags = [name for name in jax.config.values if name.endswith("3") and jax.config.values[name]]
    name = "-".join(["oryxstate", ours, "jax", jax.__version__, *sorted(flags)])
    return cache_folder(sys.platform, os.environ, home) / f"{name}.passed"


def _remember() -> None:
    record = _record()
    if record is None:
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text("The self-test of this oryxstate has passed on this JAX.\n")
    except OSError:  # then the next import runs it again
        return
