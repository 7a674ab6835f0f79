"""The list of what is in a checkpoint, in a format that is frozen with its version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FORMAT = "oryxstate checkpoint"
VERSION, WITH_PIECES = 1, 2  # of the format; the second where arrays are in pieces
MANIFEST, COMMITTED, ARRAYS = "manifest.json", "COMMITTED", "arrays"


@dataclasses.dataclass(frozen=True)
class Piece:
    """A block of an array that one of several processes wrote.

    Attributes:
        part: the folder in `arrays/` that it is in.
        start: where it begins in the array, on each axis.
        shape: its shape.
    """

    part: str
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def decode(cls, part: str, start: Sequence[int], shape: Sequence[int]) -> Piece:
        """Return the piece that JSON describes."""
        return cls(str(part), tuple(map(int, start)), tuple(map(int, shape)))


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of the saved pytree.

    Attributes:
        dtype: its dtype as text, "key<...>" for random keys, "python.int" and so on for values of
            Python.
        shape: its shape; of random keys without the axes of their data.
        part: the number of the folder in `arrays/` that it is in; None for a value of Python, and
            for an array without elements.
        value: a value of Python as text.
        pieces: its pieces, if several processes wrote it, whose blocks do not overlap.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    part: int | None = None
    value: str | None = None
    pieces: tuple[Piece, ...] = ()

    def encode(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        found = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return found if self.pieces else {k: v for k, v in found.items() if k != "pieces"}

    @classmethod
    def decode(
        cls,
        dtype: str,
        shape: Sequence[int],
        part: int | None = None,
        value: str | None = None,
        pieces: Sequence[Mapping[str, Any]] = (),
    ) -> Leaf:
        """Return the leaf that JSON describes.

        Raises:
            TypeError: if a leaf cannot be that.
        """
        if dtype in _SCALARS and isinstance(value, str):
            return cls(dtype, value=value)
        known = dtype.startswith("key<") or np.dtype(dtype).kind in "biufcV"  # V: bfloat16, ...
        if not known:
            raise TypeError(f"there is no array of dtype {dtype!r}")
        return cls(
            dtype,
            tuple(map(int, shape)),
            None if part is None else int(part),
            pieces=tuple(Piece.decode(**piece) for piece in pieces),
        )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is in a checkpoint.

    Attributes:
        leaves: the leaves by path, in order.
        files: size and CRC-32 of each file in the folder, by its path from there.
        metrics: the figures that were given with it.
        written_by: the versions of what wrote it.
    """

    leaves: Mapping[str, Leaf]
    files: Mapping[str, tuple[int, int]]
    metrics: Mapping[str, float]
    written_by: Mapping[str, str]

    def encode(self) -> bytes:
        """Return the text of the file."""
        in_pieces = any(leaf.pieces for leaf in self.leaves.values())
        data = {
            "format": FORMAT,
            "version": WITH_PIECES if in_pieces else VERSION,
            "written_by": self.written_by,
            "metrics": {name: value.hex() for name, value in self.metrics.items()},
            "leaves": {path: leaf.encode() for path, leaf in self.leaves.items()},
            "files": {name: {"size": s, "crc32": c} for name, (s, c) in self.files.items()},
        }
        return json.dumps(data, indent=1).encode()

    @classmethod
    def decode(cls, text: bytes) -> Manifest:
        """Read the text of the file.

        Raises:
            ValueError: if it is not a manifest.
            FutureVersion: if it is one of a later format.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"its {MANIFEST} is not that of an {FORMAT}")
        if data.get("version") not in (VERSION, WITH_PIECES):
            raise FutureVersion(data.get("version"), data.get("written_by", {}).get("oryxstate"))
        try:
            return cls(
                leaves={path: Leaf.decode(**leaf) for path, leaf in data["leaves"].items()},
                files={name: (f["size"], f["crc32"]) for name, f in data["files"].items()},
                metrics={name: float.fromhex(x) for name, x in data["metrics"].items()},
                written_by=data["written_by"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its {MANIFEST} is not complete: {error!r}") from None


class FutureVersion(Exception):
    """A manifest of a version that this release does not know: `args` is it and its writer."""


def seal_of(text: bytes) -> bytes:
    """Return what stands in the file that commits a manifest."""
    return f"sha256 {hashlib.sha256(text).hexdigest()}\n".encode()


_SCALARS: dict[str, tuple[Any, Any]] = {
    "python.bool": (str, lambda text: {"True": True, "False": False}[text]),
    "python.int": (str, int),
    "python.float": (float.hex, float.fromhex),
    "python.complex": (
        lambda z: f"{z.real.hex()} {z.imag.hex()}",
        lambda text: complex(*map(float.fromhex, text.split())),
    ),
    "python.str": (str, str),
    "python.bytes": (bytes.hex, bytes.fromhex),
}


def scalar_to_text(dtype: str, value: Any) -> str:
    """Return a value of Python as text from which it comes back exactly."""
    return _SCALARS[dtype][0](value)


def scalar_from_text(dtype: str, text: str) -> Any:
    """Return the value that a text stands for."""
    return _SCALARS[dtype][1](text)
