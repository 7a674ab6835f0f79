"""Rules that make one array of several, and several of one."""

from __future__ import annotations

import dataclasses
from functools import partial, reduce
from typing import Any

import numpy as np

from oryxstate.mapping._entries import Entries, Entry, apply, combine
from oryxstate.mapping._patterns import check_same_wildcards, fill, wildcards
from oryxstate.mapping._rule import Rule, axis_of, matches


@dataclasses.dataclass(frozen=True)
class Stack(Rule):
    """Stack numbered arrays along a new axis, in the order of their numbers.

    It makes the parameters of one `nn.Repeat` out of those of named layers.

    Args:
        old: a pattern with one `#`, the number.
        new: the path of the stack, with the other wildcards.
        axis: the new axis.

    Raises:
        ValueError: if the wildcards do not fit; when applied, if nothing matches, a number is
            missing, or shapes or dtypes differ.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> named = {f"block_{i}.kernel": np.full(2, i) for i in range(12)}
        >>> rule = mapping.Stack("block_#.**", "blocks.layers.**")
        >>> mapping.convert(named, [rule])["blocks.layers.kernel"].shape
        (12, 2)
    """

    old: str
    new: str
    axis: int = 0

    def __post_init__(self) -> None:
        _check_number("Stack", self.old, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the numbered ones stacked."""
        at = wildcards(self.old).index("#")
        stacks: dict[str, dict[int, str]] = {}
        for path, wild in matches(self.old, entries).items():
            rest = wild[:at] + wild[at + 1 :]
            stacks.setdefault(fill(self.new, rest), {})[int(wild[at])] = path
        if not stacks:
            raise self.none(self.old, entries)
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for to, numbered in stacks.items():
            missing = sorted(set(range(max(numbered) + 1)) - set(numbered))
            if missing:
                raise ValueError(f"{self}: for '{to}' the numbers {missing} are missing.")
            paths = [numbered[i] for i in range(len(numbered))]
            parts = _alike(self, paths, entries)
            changes |= {path: [] for path in paths}
            changes[paths[0]] = [(to, _stacked(self, to, parts, self.axis))]
        return self.renamed(entries, changes)

    def inverse(self) -> Rule:
        """Return the unstacking."""
        return Unstack(self.new, self.old, self.axis)


@dataclasses.dataclass(frozen=True)
class Unstack(Rule):
    """Take arrays apart along an axis, one numbered path for each.

    Args:
        old: a pattern without `#`.
        new: the path of each part, with one `#` for its number and the other wildcards.
        axis: the axis, which goes.
    """

    old: str
    new: str
    axis: int = 0

    def __post_init__(self) -> None:
        _check_number("Unstack", self.new, self.old)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the stacked ones taken apart."""
        at = wildcards(self.new).index("#")
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for path, wild in matches(self.old, entries).items():
            entry = entries[path]
            axis = axis_of(self, path, entry, self.axis)
            shape = entry.shape[:axis] + entry.shape[axis + 1 :]
            changes[path] = [
                (
                    fill(self.new, (*wild[:at], str(i), *wild[at:])),
                    apply(lambda x, i=i, axis=axis: x.take(i, axis), entry, shape),
                )
                for i in range(entry.shape[axis])
            ]
        if not changes:
            raise self.none(self.old, entries)
        return self.renamed(entries, changes)

    def inverse(self) -> Rule:
        """Return the stacking."""
        return Stack(self.new, self.old, self.axis)


@dataclasses.dataclass(frozen=True)
class Merge(Rule):
    """Concatenate arrays along an axis, such as three kernels into a fused one.

    Args:
        old: their patterns, all with the same wildcards.
        new: the path of the whole, with the same wildcards.
        axis: the axis to concatenate along.
        sizes: their lengths along it, which the inverse needs where they are not equal.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> rule = mapping.Merge(("query", "key", "value"), "qkv", axis=-1)
        >>> parts = {name: np.ones((4, 2)) for name in ("query", "key", "value")}
        >>> mapping.convert(parts, [rule])["qkv"].shape
        (4, 6)
    """

    old: tuple[str, ...]
    new: str
    axis: int = 0
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for pattern in self.old:
            check_same_wildcards("Merge", pattern, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the parts of each whole concatenated."""

        def whole(to: str, parts: list[Entry]) -> Entry:
            axis = axis_of(self, to, parts[0], self.axis)
            shapes = [part.shape for part in parts]
            for part in parts[1:]:
                if _without(part.shape, axis) != _without(shapes[0], axis):
                    raise ValueError(f"{self}: for '{to}' shapes differ: {shapes}.")
            lengths = tuple(shape[axis] for shape in shapes)
            if self.sizes is not None and lengths != tuple(self.sizes):
                raise ValueError(f"{self}: for '{to}' the lengths are {lengths}, not the `sizes`.")
            shape = list(shapes[0])
            shape[axis] = sum(lengths)
            return combine(lambda xs: np.concatenate(xs, axis), parts, tuple(shape))

        return _joined(self, self.old, self.new, entries, whole)

    def inverse(self) -> Rule:
        """Return the splitting."""
        return Split(self.new, self.old, self.axis, self.sizes)


@dataclasses.dataclass(frozen=True)
class Split(Rule):
    """Take arrays apart along an axis, such as a fused kernel into those of query, key and value.

    Args:
        old: a pattern.
        new: the paths of the parts, all with the same wildcards.
        axis: the axis to split along, which stays.
        sizes: the lengths of the parts; equal if None.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> rule = mapping.Split("**.qkv", ("**.query", "**.key", "**.value"), axis=-1)
        >>> {k: v.shape for k, v in mapping.convert({"a.qkv": np.ones((4, 6))}, [rule]).items()}
        {'a.query': (4, 2), 'a.key': (4, 2), 'a.value': (4, 2)}
    """

    old: str
    new: tuple[str, ...]
    axis: int = 0
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for pattern in self.new:
            check_same_wildcards("Split", self.old, pattern)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the fused ones split."""
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for path, wild in matches(self.old, entries).items():
            entry = entries[path]
            axis = axis_of(self, path, entry, self.axis)
            length, count = entry.shape[axis], len(self.new)
            sizes = self.sizes or (length // count,) * count
            if sum(sizes) != length or len(sizes) != count:
                raise ValueError(
                    f"{self}: '{path}' is {entry}, whose axis {self.axis} does not split into "
                    f"{self.sizes or f'{count} equal parts'}."
                )
            start, parts = 0, []
            for pattern, size in zip(self.new, sizes, strict=True):
                at = (slice(None),) * axis + (slice(start, start + size),)
                shape = (*entry.shape[:axis], size, *entry.shape[axis + 1 :])
                part = apply(lambda x, at=at: x[at], entry, shape)
                parts.append((fill(pattern, wild), part))
                start += size
            changes[path] = parts
        if not changes:
            raise self.none(self.old, entries)
        return self.renamed(entries, changes)

    def inverse(self) -> Rule:
        """Return the merging."""
        return Merge(self.new, self.old, self.axis, self.sizes)


@dataclasses.dataclass(frozen=True)
class Sum(Rule):
    """Add arrays up, such as the two biases of PyTorch's recurrent cells.

    Args:
        old: their patterns, all with the same wildcards.
        new: the path of the sum, with the same wildcards.
    """

    old: tuple[str, ...]
    new: str

    def __post_init__(self) -> None:
        for pattern in self.old:
            check_same_wildcards("Sum", pattern, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, those of each sum added up."""

        def whole(to: str, parts: list[Entry]) -> Entry:
            if len({part.shape for part in parts}) > 1:
                raise ValueError(f"{self}: for '{to}' shapes differ: {[p.shape for p in parts]}.")
            return combine(partial(reduce, np.add), parts, parts[0].shape)

        return _joined(self, self.old, self.new, entries, whole)

    def inverse(self) -> Rule:
        """Return the rule that gives the whole to the first, and zeros to the others."""
        return Share(self.new, self.old)


@dataclasses.dataclass(frozen=True)
class Share(Rule):
    """Give an array to the first of several paths and zeros to the others: the inverse of `Sum`.

    Args:
        old: a pattern.
        new: the paths, all with the same wildcards.
    """

    old: str
    new: tuple[str, ...]

    def __post_init__(self) -> None:
        for pattern in self.new:
            check_same_wildcards("Share", self.old, pattern)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, each that matches beside its zeros."""
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for path, wild in matches(self.old, entries).items():
            entry = entries[path]
            first, *others = (fill(pattern, wild) for pattern in self.new)
            zeros = apply(np.zeros_like, entry, entry.shape)
            changes[path] = [(first, entry), *((to, zeros) for to in others)]
        if not changes:
            raise self.none(self.old, entries)
        return self.renamed(entries, changes)

    def inverse(self) -> Rule:
        """Return the sum."""
        return Sum(self.new, self.old)


def _joined(rule: Rule, old: tuple[str, ...], new: str, entries: Entries, whole: Any) -> Entries:
    """Replace groups of entries, one for each value of the wildcards, by one entry each."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for pattern in old:
        for path, wild in matches(pattern, entries).items():
            groups.setdefault(wild, {})[pattern] = path
    if not groups:
        raise rule.none(old[0], entries)
    changes: dict[str, list[tuple[str, Entry]]] = {}
    for wild, found in groups.items():
        to = fill(new, wild)
        missing = [fill(pattern, wild) for pattern in old if pattern not in found]
        if missing:
            raise ValueError(f"{rule}: for '{to}' there is no {', '.join(map(repr, missing))}.")
        paths = [found[pattern] for pattern in old]
        parts = _alike(rule, paths, entries)
        changes |= {path: [] for path in paths}
        changes[next(p for p in entries if p in paths)] = [(to, whole(to, parts))]
    return rule.renamed(entries, changes)


def _alike(rule: Rule, paths: list[str], entries: Entries) -> list[Entry]:
    parts = [entries[path] for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.dtype != parts[0].dtype or not part.is_array:
            raise ValueError(
                f"{rule}: arrays of one dtype are wanted, but '{paths[0]}' is {parts[0]} and "
                f"'{path}' is {part}."
            )
    return parts


def _stacked(rule: Rule, to: str, parts: list[Entry], axis: int) -> Entry:
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"{rule}: for '{to}' shapes differ: {sorted(shapes)}.")
    (shape,) = shapes
    ndim = len(shape) + 1
    if not -ndim <= axis < ndim:
        raise ValueError(f"{rule}: for '{to}' the stack of {parts[0]} has no axis {axis}.")
    at = axis % ndim
    return combine(lambda xs: np.stack(xs, at), parts, (*shape[:at], len(parts), *shape[at:]))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _check_number(rule: str, numbered: str, other: str) -> None:
    if wildcards(numbered).count("#") != 1 or "#" in wildcards(other):
        raise ValueError(
            f"{rule}: one pattern has one `#`, the number, and the other has none, such as "
            f"'block_#.**' and 'blocks.layers.**'; got {numbered!r} and {other!r}."
        )
    rest = [wild for wild in wildcards(numbered) if wild != "#"]
    if rest != wildcards(other):
        raise ValueError(
            f"{rule}: {numbered!r} and {other!r} must have the same wildcards beside `#`."
        )
