"""Arrays in a folder, written and read by Orbax, a part at a time to bound the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from oryxstate._extras import require

PART = 2**26  # bytes, of several arrays together


def parts(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Group arrays, in order, so that each group but for a single large array has `PART` bytes."""
    group: list[str] = []
    total = 0
    for path, size in sizes.items():
        if group and total + size > PART:
            yield group
            group, total = [], 0
        group.append(path)
        total += size
    if group:
        yield group


def write(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by path into a new folder."""
    orbax, handler = _handler()
    folder.mkdir()
    where = _epath(folder)
    handler.save(where, args=orbax.args.PyTreeSave({_name(k): v for k, v in arrays.items()}))
    handler.finalize(where)
    handler.close()


def read(folder: Path, paths: Iterable[str]) -> dict[str, np.ndarray]:
    """Read some of the arrays in a folder by path."""
    orbax, handler = _handler()
    names = {_name(path): path for path in paths}
    as_numpy = orbax.RestoreArgs(restore_type=np.ndarray)
    args = orbax.args.PyTreeRestore(
        item=dict.fromkeys(names, 0),
        restore_args=dict.fromkeys(names, as_numpy),
        partial_restore=True,
    )
    found = handler.restore(_epath(folder), args=args)
    handler.close()
    return {names[name]: value for name, value in found.items()}


def _handler() -> tuple[Any, Any]:
    orbax = require("orbax.checkpoint", "train")
    # Weights hardly compress, and compressing them takes longer than writing them.
    return orbax, orbax.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False)


def _epath(folder: Path) -> Any:
    return require("etils.epath", "train").Path(folder)


def _name(path: str) -> str:
    """Return a path as a name for Orbax, to which some characters mean something."""
    return quote(path, safe="[]") or "%"
