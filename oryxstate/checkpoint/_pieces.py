"""Arrays that several processes hold, and files hold, in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Block = tuple[slice, ...]


def block(start: Sequence[int], shape: Sequence[int]) -> Block:
    """Return the index of the block of this shape that begins there."""
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


def bounds(index: Any, shape: Sequence[int]) -> Block:
    """Return an index of slices with all their ends."""
    return tuple(slice(*s.indices(n)[:2]) for s, n in zip(index, shape, strict=True))


def common(one: Block, other: Block) -> Block | None:
    """Return the block in which two blocks overlap, None if they do not."""
    both = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return None if any(s.start >= s.stop for s in both) else both


class Pieces:
    """An array of which those pieces are in memory that are wanted.

    Args:
        shape: the shape of the array.
        pieces: where each piece begins, and the piece.
    """

    def __init__(
        self, shape: Sequence[int], pieces: Iterable[tuple[Sequence[int], np.ndarray]]
    ) -> None:
        self.shape = tuple(shape)
        self._pieces = [(block(start, piece.shape), piece) for start, piece in pieces]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return a block of the array."""
        wanted = bounds(index, self.shape)
        out = np.empty([s.stop - s.start for s in wanted], self._pieces[0][1].dtype)
        for has, piece in self._pieces:
            if (both := common(wanted, has)) is not None:
                out[_within(both, wanted)] = piece[_within(both, has)]
        return out

    def whole(self) -> np.ndarray:
        """Return the array."""
        return self[(slice(None),) * len(self.shape)]


def _within(inner: Block, outer: Block) -> Block:
    """Return the index of a block in another that contains it."""
    return tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
    )
