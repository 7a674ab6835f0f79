"""A report on the installation, for bug reports: `python -m oryxstate`."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import sys
import textwrap
from collections.abc import Iterator

import jax

from oryxstate import _interception, _releases, _selftest, _surface
from oryxstate._version import __version__

REQUIRED = ("jaxlib", "equinox", "jaxtyping", "wadler-lindig")
OPTIONAL = (
    *("optax", "orbax-checkpoint", "safetensors", "rich"),
    *("treescope", "matplotlib"),
    *("hypothesis", "beartype", "pytest"),
)
# Options of JAX that often decide whether a program works.
OPTIONS = (
    *("jax_enable_x64", "jax_disable_jit", "jax_debug_nans"),
    *("jax_numpy_dtype_promotion", "jax_numpy_rank_promotion"),
)
DOCUMENTATION = "the folder `docs` of the sources; `nox -s docs` builds the site in `.site`"


def main() -> int:
    """Print the report.

    Returns:
        The exit status: 0 if the self-test passes, 1 if not.
    """
    wrong = [*_surface.broken(), *_selftest.wrong()]
    for heading, lines in {**_installation(), "self-test": _result(wrong)}.items():
        print(heading)
        print(textwrap.indent("\n".join(lines), "  "))
    print(f"documentation\n  {DOCUMENTATION}")
    return 1 if wrong else 0


def _installation() -> dict[str, list[str]]:
    return {
        f"oryxstate {__version__}": [str(pathlib.Path(__file__).parent)],
        f"Python {platform.python_version()}": [platform.platform()],
        f"JAX {jax.__version__}": [_tested(), *_devices(), *_settings()],
        "packages": [*map(_package, REQUIRED), *map(_package, OPTIONAL)],
        "replaced in JAX": [*_replaced()],
    }


def _tested() -> str:
    if jax.__version__ in _releases.TESTED:
        return "one of the releases that this oryxstate is tested with"
    return f"not tested with this oryxstate: {_releases.OLDEST} to {_releases.NEWEST} are"


def _devices() -> list[str]:
    try:
        devices = jax.devices()
    except RuntimeError as error:
        return [f"no devices: {error}"]
    kinds = [f"{device.device_kind}, {device.platform}" for device in devices]
    return [f"devices: {kinds.count(kind)} ({kind})" for kind in dict.fromkeys(kinds)]


def _settings() -> Iterator[str]:
    yield ", ".join(f"{name[4:]}={jax.config.values[name]}" for name in OPTIONS)
    for name in sorted(os.environ):
        if name.startswith(("JAX_", "ORYXSTATE_")) or name == "XLA_FLAGS":
            yield f"{name}={os.environ[name]}"


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"


_BIND = ".bind_with_trace"


def _replaced() -> Iterator[str]:
    found = _interception.replaced()
    bound = ", ".join(sorted(name[: -len(_BIND)] for name in found if name.endswith(_BIND)))
    text = f"while a root call is open: `bind_with_trace` of {bound}"
    yield from textwrap.wrap(text, 96, subsequent_indent="  ")
    yield f"and {', '.join(sorted(name for name in found if not name.endswith(_BIND)))}"
    others = [name for name, value in found.items() if value.__module__.split(".")[0] != "jax"]
    yield f"by another library: {', '.join(others) or 'none of these'}"


def _result(wrong: list[str]) -> list[str]:
    names = len(_surface.PRIVATE) + len(_surface.PUBLIC) + len(_surface.PRIMITIVES)
    programs = ", ".join(_selftest.PROGRAMS)
    return wrong or [f"passed: {names} names of JAX, and state through {programs}"]


if __name__ == "__main__":
    sys.exit(main())
