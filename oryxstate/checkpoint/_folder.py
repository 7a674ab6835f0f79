"""One checkpoint: a folder that is written whole or not at all, and checked before it is read."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from oryxstate._errors import CheckpointError
from oryxstate._version import __version__
from oryxstate.checkpoint import _arrays, _disk
from oryxstate.checkpoint._call import Call
from oryxstate.checkpoint._manifest import (
    ARRAYS,
    COMMITTED,
    MANIFEST,
    WITH_PIECES,
    FutureVersion,
    Leaf,
    Manifest,
    Piece,
    seal_of,
)
from oryxstate.checkpoint._merge import checksum, merged
from oryxstate.checkpoint._snapshot import Taken

WRITERS = 2  # parts that are written at once; one computes while the other waits for the disk


def write(
    folder: Path, taken: Mapping[str, Taken], metrics: Mapping[str, float], call: Call
) -> None:
    """Write a checkpoint, durably, together with the other processes.

    It is made under another name, and gets its own when all of it is on the disk. If anything
    fails, what was made is removed.

    Args:
        folder: the folder, which does not exist; the one above it does.
        taken: the leaves, from `snapshot`.
        metrics: figures to keep with it.
        call: the call by which all processes write it.
    """
    temporary = _disk.temporary_beside(folder)  # of process 0, which makes it

    def begin(_: Any) -> str:
        (temporary / ARRAYS).mkdir(parents=True)
        return temporary.name

    def finish(said: Sequence[Any]) -> None:
        leaves, files = merged(temporary, said)
        _commit(temporary, Manifest(leaves, files, metrics, _versions()))
        _disk.publish(temporary, folder)

    try:
        name = call.agree("begin", lambda: None, begin)
        call.agree("write", lambda: _fill(folder.parent / name, taken, call), finish)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(folder: Path, taken: Mapping[str, Taken], call: Call) -> dict[str, Any]:
    """Write the share of this process, and return what `merged` needs."""
    _disk.await_visible(folder)
    leaves = {path: each.leaf for path, each in taken.items()}
    files: dict[str, tuple[int, int]] = {}
    if call.number == 0:
        leaves, files = _write_whole(folder, taken)
    pieces, more = _write_pieces(folder, taken, call.number)
    own = {path: each for path, each in taken.items() if each.own and call.count > 1}
    return {
        "leaves": {path: leaf.encode() for path, leaf in leaves.items()},
        "pieces": {path: [dataclasses.asdict(p) for p in found] for path, found in pieces.items()},
        "files": files | more,
        "checksums": {path: checksum(each) for path, each in own.items()},
    }


def _write_whole(
    folder: Path, taken: Mapping[str, Taken]
) -> tuple[dict[str, Leaf], dict[str, tuple[int, int]]]:
    leaves = {path: each.leaf for path, each in taken.items()}
    arrays = {path: each.whole for path, each in taken.items() if each.whole is not None}
    groups = list(_arrays.parts({path: _bytes(leaves[path]) for path in arrays}))
    for i, group in enumerate(groups):
        leaves |= {path: dataclasses.replace(leaves[path], part=i) for path in group}

    def write_part(i: int) -> dict[str, tuple[int, int]]:
        part = folder / ARRAYS / str(i)
        _arrays.write(part, {path: arrays[path]() for path in groups[i]})
        return {f"{ARRAYS}/{i}/{name}": file for name, file in _disk.seal(part).items()}

    with ThreadPoolExecutor(WRITERS) as pool:
        files = [file for part in pool.map(write_part, range(len(groups))) for file in part.items()]
    return leaves, dict(files)


def _write_pieces(
    folder: Path, taken: Mapping[str, Taken], process: int
) -> tuple[dict[str, list[Piece]], dict[str, tuple[int, int]]]:
    arrays = {(path, start): a for path, each in taken.items() for start, a in each.pieces}
    found: dict[str, list[Piece]] = {}
    files: dict[str, tuple[int, int]] = {}
    for i, group in enumerate(_arrays.parts({key: a.nbytes for key, a in arrays.items()})):
        name = f"{process}-{i}"
        part = folder / ARRAYS / name
        _arrays.write_pieces(part, {key: arrays[key] for key in group})
        files |= {f"{ARRAYS}/{name}/{file}": size for file, size in _disk.seal(part).items()}
        for path, start in group:
            found.setdefault(path, []).append(Piece(name, start, arrays[path, start].shape))
    return found, files


def _commit(folder: Path, found: Manifest) -> None:
    _disk.sync(folder / ARRAYS)
    text = found.encode()
    _disk.write(folder / MANIFEST, text)
    # The mark must not be on the disk before what it stands for.
    _disk.sync(folder)
    _disk.write(folder / COMMITTED, seal_of(text))
    _disk.sync(folder)


def _bytes(leaf: Leaf) -> int:
    each = 16 if leaf.dtype.startswith("key<") else np.dtype(leaf.dtype).itemsize
    return int(np.prod(leaf.shape, dtype=np.int64)) * each


def _versions() -> dict[str, str]:
    names = ("jax", "orbax-checkpoint")
    return {"oryxstate": __version__, **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # its sources, not installed
        return "unknown"


def manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint whose files are all there, with the sizes they had.

    Raises:
        CheckpointError: if it is not a checkpoint, damaged, or of a later format.
    """
    try:
        text, mark = (folder / MANIFEST).read_bytes(), (folder / COMMITTED).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(folder, f"there is no {error.filename}, so it is not a checkpoint") from None
    if mark != seal_of(text):
        raise Damaged(folder, f"its {MANIFEST} is not the one that was committed")
    try:
        found = Manifest.decode(text)
    except FutureVersion as error:
        version, writer = error.args
        raise CheckpointError(
            f"'{folder}' has version {version} of the format, written by oryxstate {writer}; this "
            f"release reads versions up to {WITH_PIECES}. Update oryxstate, "
            "`pip install -U oryxstate`."
        ) from None
    except ValueError as error:
        raise Damaged(folder, str(error)) from None
    for name, (size, _) in found.files.items():
        try:
            now = (folder / name).stat().st_size
        except OSError:
            raise Damaged(folder, f"its file {name} is missing") from None
        if now != size:
            raise Damaged(folder, f"its file {name} has {now} bytes instead of {size}")
    return found


class Damaged(CheckpointError):
    """A folder that is not a whole checkpoint."""

    def __init__(self, folder: Path, reason: str):
        super().__init__(f"'{folder}' cannot be read: {reason}.")
