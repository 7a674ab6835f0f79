"""What all processes have written, as one checkpoint."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oryxstate.checkpoint._manifest import Leaf, Piece
from oryxstate.checkpoint._snapshot import Taken

Files = dict[str, tuple[int, int]]


def checksum(taken: Taken) -> int:
    """Return a number that is the same for equal arrays."""
    assert taken.whole is not None, "an array of this process"
    return zlib.crc32(np.ascontiguousarray(taken.whole()).tobytes())


def merged(folder: Path, said: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Leaf], Files]:
    """Return the leaves and files of a checkpoint from what each process says of its share.

    Raises:
        ValueError: if the processes have saved different trees, or different values of what is not
            on several devices.
        FileNotFoundError: if this process does not see the files of another.
    """
    first, *others = said
    for process, other in enumerate(others, 1):
        _check_same(first, other, process)
    files: Files = {}
    for process, each in enumerate(said):
        files |= {name: (size, crc) for name, (size, crc) in each["files"].items()}
        if process > 0:
            _check_seen(folder, each["files"], process)
    pieces: dict[str, list[Piece]] = {}
    for each in said:
        for path, found in each["pieces"].items():
            pieces.setdefault(path, []).extend(Piece.decode(**piece) for piece in found)
    leaves = {path: Leaf.decode(**leaf) for path, leaf in first["leaves"].items()}
    for path, found in pieces.items():
        _check_covered(path, leaves[path], found)
        leaves[path] = dataclasses.replace(leaves[path], pieces=tuple(found))
    return leaves, files


def _check_same(first: Mapping[str, Any], other: Mapping[str, Any], process: int) -> None:
    mine, theirs = first["leaves"], other["leaves"]
    if only := sorted(mine.keys() ^ theirs.keys()):
        has, lacks = (0, process) if only[0] in mine else (process, 0)
        raise ValueError(
            f"the processes save different trees: process {has} has '{only[0]}', and process "
            f"{lacks} does not"
        )
    for path, leaf in mine.items():
        one, two = (Leaf.decode(**of) for of in (leaf, theirs[path]))
        for what in ("dtype", "shape", "value"):
            a, b = getattr(one, what), getattr(two, what)
            if a != b:
                raise ValueError(_differs(path, process, f": {what} {a} and {b}"))
    for path, number in first["checksums"].items():
        if number != other["checksums"].get(path):
            raise ValueError(_differs(path, process, ""))


def _differs(path: str, process: int, how: str) -> str:
    return (
        f"'{path}' differs between process 0 and process {process}{how}. It is not on devices of "
        "several processes, so one value is saved for all. Compute it alike in all of them, such "
        "as from the step, or gather the values of all into one array"
    )


def _check_seen(folder: Path, files: Mapping[str, Any], process: int) -> None:
    for name in files:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"process 0 does not see '{folder / name}', which process {process} has written; "
                "checkpoints are on a file system that all processes share"
            )


def _check_covered(path: str, leaf: Leaf, pieces: Sequence[Piece]) -> None:
    whole = math.prod(leaf.shape)
    keys = leaf.dtype.startswith("key<")  # their data have an axis more
    found = sum(math.prod(p.shape[: len(leaf.shape)] if keys else p.shape) for p in pieces)
    if found != whole:
        raise ValueError(
            f"of '{path}', {found} of {whole} elements were saved; every process "
            "saves the same tree"
        )
