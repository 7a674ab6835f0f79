"""One checkpoint: a folder that is written whole or not at all, and checked before it is read."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from oryxstate._errors import CheckpointError
from oryxstate._tree import named_leaves
from oryxstate.checkpoint import _arrays, _disk
from oryxstate.checkpoint._manifest import (
    ARRAYS,
    COMMITTED,
    MANIFEST,
    VERSION,
    FutureVersion,
    Leaf,
    Manifest,
    scalar_from_text,
    seal_of,
)
from oryxstate.checkpoint._snapshot import Array
from oryxstate.mapping._convert import follow
from oryxstate.mapping._entries import Entries, Entry
from oryxstate.mapping._match import Report, compare
from oryxstate.mapping._rule import Rule
from oryxstate.mapping._targets import put

WRITERS = 2  # parts that are written at once; one computes while the other waits for the disk


def write(
    folder: Path, taken: Mapping[str, tuple[Leaf, Array | None]], metrics: Mapping[str, float]
) -> None:
    """Write a checkpoint, durably.

    It is made under another name, and gets its own when all of it is on the disk. If anything
    fails, what was made is removed.

    Args:
        folder: the folder, which does not exist; the one above it does.
        taken: the leaves, from `snapshot`.
        metrics: figures to keep with it.
    """
    temporary = _disk.temporary_beside(folder)
    try:
        _fill(temporary, taken, metrics)
        _disk.publish(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(
    folder: Path, taken: Mapping[str, tuple[Leaf, Array | None]], metrics: Mapping[str, float]
) -> None:
    os.mkdir(folder)
    (folder / ARRAYS).mkdir()
    leaves = {path: leaf for path, (leaf, _) in taken.items()}
    arrays = {path: array for path, (_, array) in taken.items() if array is not None}
    groups = list(_arrays.parts({path: _bytes(leaves[path]) for path in arrays}))
    for i, group in enumerate(groups):
        leaves |= {path: dataclasses.replace(leaves[path], part=i) for path in group}

    def write_part(i: int) -> dict[str, tuple[int, int]]:
        part = folder / ARRAYS / str(i)
        _arrays.write(part, {path: arrays[path]() for path in groups[i]})
        return {f"{ARRAYS}/{i}/{name}": file for name, file in _disk.seal(part).items()}

    with ThreadPoolExecutor(WRITERS) as pool:
        files = [file for part in pool.map(write_part, range(len(groups))) for file in part.items()]
    _disk.sync(folder / ARRAYS)
    text = Manifest(leaves, dict(files), metrics, _versions()).encode()
    _disk.write(folder / MANIFEST, text)
    # The mark must not be on the disk before what it stands for.
    _disk.sync(folder)
    _disk.write(folder / COMMITTED, seal_of(text))
    _disk.sync(folder)


def _bytes(leaf: Leaf) -> int:
    each = 16 if leaf.dtype.startswith("key<") else np.dtype(leaf.dtype).itemsize
    return int(np.prod(leaf.shape, dtype=np.int64)) * each


def _versions() -> dict[str, str]:
    names = ("oryxstate", "jax", "orbax-checkpoint")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # the sources of this package, not installed
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
            f"release reads version {VERSION}. Update oryxstate, `pip install -U oryxstate`."
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


def read(folder: Path, into: Any, *, select: Any, rules: Sequence[Rule]) -> tuple[Any, Report]:
    """Read a checkpoint into a pytree like `into`."""
    found = manifest(folder)
    entries: Entries = {
        path: Entry.saved(path, leaf.shape, leaf.dtype) for path, leaf in found.leaves.items()
    }
    entries = follow(rules, entries)
    report = compare(entries, into, select, f"'{folder}'")
    loaded = dict(named_leaves(into))
    for path, value in _values(folder, found, {path: entries[path] for path in report.loaded}):
        loaded[path] = put(value, loaded[path], path)
    return jax.tree.unflatten(jax.tree.structure(into), loaded.values()), report


def _values(folder: Path, found: Manifest, entries: Entries) -> Iterator[tuple[str, Any]]:
    """Yield values by path, part after part, holding no saved array longer than its last use."""
    leaves = found.leaves

    def last_part(path: str) -> int:
        return max((leaves[source].part or 0 for source in entries[path].sources), default=0)

    order = sorted(entries, key=last_part)
    last = {source: path for path in order for source in entries[path].sources}
    held: dict[str, Any] = {}
    wanted: dict[int, list[str]] = {}
    for source in last:
        if (part := leaves[source].part) is not None:
            wanted.setdefault(part, []).append(source)
        else:
            held[source] = _stored(leaves[source])
    with ThreadPoolExecutor(1) as pool:
        parts = iter([(part, partial(_part, folder, found, part, wanted[part])) for part in wanted])
        ahead = {part: pool.submit(read) for part, read in itertools.islice(parts, 1)}
        for path in order:
            for source in entries[path].sources:
                if source not in held:
                    # While this part goes into the model, the next one is read.
                    ahead |= {part: pool.submit(read) for part, read in itertools.islice(parts, 1)}
                    part = leaves[source].part
                    assert part is not None, "a value of Python, which is read from the manifest"
                    held |= ahead.pop(part).result()
            yield path, entries[path].value(held)
            for source in {s for s in entries[path].sources if last[s] == path}:
                del held[source]


def _stored(leaf: Leaf) -> Any:
    """Return a leaf that is in the manifest itself."""
    if leaf.value is not None:
        return scalar_from_text(leaf.dtype, leaf.value)
    keys = leaf.dtype.startswith("key<")
    return np.empty((*leaf.shape, 0) if keys else leaf.shape, "uint32" if keys else leaf.dtype)


def _part(folder: Path, found: Manifest, part: Any, wanted: list[str]) -> dict[str, Any]:
    """Read arrays of one part, whose files are checked first."""
    name = f"{ARRAYS}/{part}/"
    for file in (file for file in found.files if file.startswith(name)):
        if _disk.measure(folder / file) != found.files[file]:
            raise Damaged(folder, f"its file {file} is not the one that was written")
    return _arrays.read(folder / name, wanted)
