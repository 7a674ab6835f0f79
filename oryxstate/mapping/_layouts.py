"""Rules that change the layout of each array where it is."""

from __future__ import annotations

import abc
import dataclasses
import math

import numpy as np

from oryxstate.mapping._entries import Entries, Entry, apply
from oryxstate.mapping._rule import Rule, axis_of, matches


class _Each(Rule):
    """A rule that changes each array that matches, where it is."""

    pattern: str

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the matching ones changed."""
        found = matches(self.pattern, entries)
        if not found:
            raise self.none(self.pattern, entries)
        for path in found:
            if not entries[path].is_array:
                raise ValueError(f"{self}: '{path}' is {entries[path]}, not an array.")
        return {p: self._changed(p, e) if p in found else e for p, e in entries.items()}

    @abc.abstractmethod
    def _changed(self, path: str, entry: Entry) -> Entry:
        """Return the entry after the change."""


@dataclasses.dataclass(frozen=True)
class Transpose(_Each):
    """Permute the axes of arrays, as `numpy.transpose` does.

    Args:
        pattern: a pattern of paths.
        axes: for each new axis, the old one; reversed if None.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> kernels = mapping.convert({"w": np.ones((2, 3))}, [mapping.Transpose("w")])
        >>> kernels["w"].shape
        (3, 2)
    """

    pattern: str
    axes: tuple[int, ...] | None = None

    def _changed(self, path: str, entry: Entry) -> Entry:
        ndim = len(entry.shape)
        axes = tuple(range(ndim))[::-1] if self.axes is None else tuple(self.axes)
        axes = tuple(axis_of(self, path, entry, a) for a in axes)
        if sorted(axes) != list(range(ndim)):
            raise ValueError(f"{self}: {axes} does not permute the axes of '{path}', {entry}.")

        def permuted(x: np.ndarray) -> np.ndarray:
            # Behind the axes of random keys are those of their data.
            return x.transpose((*axes, *range(ndim, x.ndim)))

        return apply(permuted, entry, tuple(entry.shape[a] for a in axes))

    def inverse(self) -> Rule:
        """Return the permutation back."""
        if self.axes is None:
            return self
        axes = [a % len(self.axes) for a in self.axes]
        return Transpose(self.pattern, tuple(axes.index(i) for i in range(len(axes))))


@dataclasses.dataclass(frozen=True)
class Flip(_Each):
    """Reverse arrays along axes.

    Args:
        pattern: a pattern of paths.
        axes: the axes to reverse.
    """

    pattern: str
    axes: tuple[int, ...]

    def _changed(self, path: str, entry: Entry) -> Entry:
        axes = tuple(axis_of(self, path, entry, a) for a in self.axes)
        return apply(lambda x: np.flip(x, axes), entry, entry.shape)

    def inverse(self) -> Rule:
        """Return itself."""
        return self


@dataclasses.dataclass(frozen=True)
class Reshape(_Each):
    """Give arrays another shape, in the order of their elements.

    Args:
        pattern: a pattern of paths.
        old: the shape that they have; -1 stands for any length, once.
        new: the shape that they get; -1 stands for what is left, once.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> heads = mapping.Reshape("query.kernel", old=(-1, 2, 3), new=(-1, 6))
        >>> mapping.convert({"query.kernel": np.ones((4, 2, 3))}, [heads])["query.kernel"].shape
        (4, 6)
    """

    pattern: str
    old: tuple[int, ...]
    new: tuple[int, ...]

    def _changed(self, path: str, entry: Entry) -> Entry:
        pairs = list(zip(self.old, entry.shape, strict=False))
        if len(self.old) != len(entry.shape) or any(a not in (-1, b) for a, b in pairs):
            raise ValueError(f"{self}: '{path}' is {entry}, which is not of the shape {self.old}.")
        size, fixed = math.prod(entry.shape), math.prod(n for n in self.new if n != -1)
        left = size // fixed if fixed else 0
        shape = tuple(left if n == -1 else n for n in self.new)
        if math.prod(shape) != size:
            raise ValueError(f"{self}: '{path}' is {entry}, which cannot have shape {self.new}.")
        ndim = len(entry.shape)
        return apply(lambda x: x.reshape((*shape, *x.shape[ndim:])), entry, shape)

    def inverse(self) -> Rule:
        """Return the change back."""
        return Reshape(self.pattern, self.new, self.old)
