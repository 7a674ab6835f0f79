"""Arrays in a folder, written and read by Orbax, a part at a time to bound the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from oryxstate import _jax
from oryxstate._extras import require

PART = 2**26  # bytes, of several arrays together


K = TypeVar("K")


def parts(sizes: Mapping[K, int]) -> Iterator[list[K]]:
    """Group arrays, in order, so that each group but for a single large array has `PART` bytes."""
    group: list[K] = []
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


def write_pieces(folder: Path, arrays: Mapping[tuple[str, tuple[int, ...]], np.ndarray]) -> None:
    """Write pieces of arrays, by path and where they begin, into a new folder.

    They are stored as Orbax stores arrays, but not by Orbax, for which NumPy arrays are equal in
    all processes.
    """
    tensorstore = require("tensorstore", "train")
    folder.mkdir()
    with tensorstore.Transaction() as transaction:
        for (path, start), array in arrays.items():
            store = tensorstore.open(
                _zarr(folder, path, start),
                create=True,
                dtype=array.dtype,
                shape=array.shape,
                transaction=transaction,
            ).result()
            store.write(array).result()


def read_pieces(
    folder: Path, wanted: Iterable[tuple[str, tuple[int, ...]]]
) -> dict[tuple[str, tuple[int, ...]], np.ndarray]:
    """Read some of the pieces in a folder, by path and where they begin."""
    tensorstore = require("tensorstore", "train")
    opened = {
        (path, start): tensorstore.open(_zarr(folder, path, start), open=True)
        for path, start in wanted
    }
    reading = {key: store.result().read() for key, store in opened.items()}
    return {key: read.result() for key, read in reading.items()}


def _zarr(folder: Path, path: str, start: tuple[int, ...]) -> dict[str, Any]:
    """Return where a piece is, for TensorStore; `_name` leaves no `@` in a path."""
    name = f"{_name(path)}@{','.join(map(str, start))}/"
    files = {"driver": "file", "path": f"{folder}/"}
    database = {"driver": "ocdbt", "base": files, "path": name}
    return {"driver": "zarr", "kvstore": database, "metadata": {"compressor": None}}


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
    _, process, count = _jax.processes()
    alone = {}
    if count > 1:  # each calls for itself; the processes agree elsewhere
        options = orbax.options.MultiprocessingOptions(
            primary_host=process,
            active_processes={process},
            barrier_sync_key_prefix=f"process{process}",
        )
        alone = {"multiprocessing_options": options}
    # Weights hardly compress, and compressing them takes longer than writing them.
    return orbax, orbax.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False, **alone)


def _epath(folder: Path) -> Any:
    return require("etils.epath", "train").Path(folder)


def _name(path: str) -> str:
    """Return a path as a name for Orbax, to which some characters mean something."""
    return quote(path, safe="[]") or "%"
