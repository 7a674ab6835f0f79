"""Arrays that are known by shape and dtype before they are read."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Entries = dict[str, "Entry"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A saved array, or what a mapping computes from saved arrays.

    Attributes:
        shape: its shape; of random keys without the axes of their data.
        dtype: its dtype, as text, such as "float32" or "key<fry>"; for a Python value its type,
            such as "python.int".
        sources: the paths of the saved arrays that it is computed from.
        compute: computes it from them.
        plain: whether it is one saved array as it is.
    """

    shape: tuple[int, ...]
    dtype: str
    sources: tuple[str, ...]
    compute: Callable[..., np.ndarray]
    plain: bool = False

    @classmethod
    def saved(cls, path: str, shape: tuple[int, ...], dtype: str) -> Entry:
        """Return the entry of a saved array."""
        return cls(tuple(shape), dtype, (path,), _same, plain=True)

    @property
    def is_array(self) -> bool:
        """Whether it has a shape and dtype, unlike a Python scalar or a text."""
        return self.dtype not in SCALARS

    def value(self, saved: Mapping[str, Any]) -> Any:
        """Compute the value from saved arrays by path."""
        return self.compute(*(saved[path] for path in self.sources))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]" if self.is_array else self.dtype


SCALARS = {f"python.{kind.__name__}": kind for kind in (bool, int, float, complex, str, bytes)}


def _same(value: Any) -> Any:
    return value


def apply(
    function: Callable[[np.ndarray], np.ndarray], entry: Entry, shape: tuple[int, ...]
) -> Entry:
    """Return what a function of one array gives, with its shape."""
    return Entry(shape, entry.dtype, entry.sources, lambda *xs: function(entry.compute(*xs)))


def combine(
    function: Callable[[list[np.ndarray]], np.ndarray],
    entries: list[Entry],
    shape: tuple[int, ...],
) -> Entry:
    """Return what a function of several arrays gives, with its shape."""
    sizes = [len(entry.sources) for entry in entries]
    starts = np.cumsum([0, *sizes]).tolist()
    parts = [slice(a, b) for a, b in itertools.pairwise(starts)]
    sources = tuple(path for entry in entries for path in entry.sources)

    def compute(*xs: np.ndarray) -> np.ndarray:
        values = [entry.compute(*xs[at]) for entry, at in zip(entries, parts, strict=True)]
        return function(values)

    return Entry(shape, entries[0].dtype, sources, compute)
