"""The rules of which a mapping is made: each changes paths, or arrays, or both."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from oryxstate.mapping._entries import Entries, Entry, apply, combine
from oryxstate.mapping._patterns import check_same_wildcards, fill, match, wildcards


class Rule(abc.ABC):
    """A change of saved arrays by path.

    A mapping is a sequence of rules; each sees what the one before it left. In the patterns of
    paths `*` stands for a part without dots, `**` for any text and `#` for a number.
    """

    @abc.abstractmethod
    def apply(self, entries: Entries) -> Entries:
        """Return the entries after the change."""

    @abc.abstractmethod
    def inverse(self) -> Rule:
        """Return the rule that leads back."""

    def _none(self, pattern: str, entries: Entries) -> ValueError:
        some = ", ".join(list(entries)[:5]) or "none"
        return ValueError(
            f"{self} matches no path: no path is {pattern!r}. There are {len(entries)}: {some}"
            f"{', ...' if len(entries) > 5 else ''}."
        )

    def _renamed(self, entries: Entries, changes: dict[str, list[tuple[str, Entry]]]) -> Entries:
        """Return the entries with some replaced by others, in the order of the old ones."""
        new: Entries = {}
        for path, entry in entries.items():
            for to, changed in changes.get(path, [(path, entry)]):
                if to in new:
                    raise ValueError(f"{self} gives two arrays the path {to!r}.")
                new[to] = changed
        return new


@dataclasses.dataclass(frozen=True)
class Rename(Rule):
    """Give arrays another path.

    Args:
        old: a pattern of paths.
        new: the new path, with the same wildcards in the same order.

    Raises:
        ValueError: if the wildcards differ; when applied, if nothing matches.

    Examples:
        >>> import numpy as np
        >>> from oryxstate import mapping
        >>> mapping.convert({"encoder.w": np.ones(2)}, [mapping.Rename("encoder.**", "body.**")])
        {'body.w': array([1., 1.])}
    """

    old: str
    new: str

    def __post_init__(self):
        check_same_wildcards("Rename", self.old, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries under their new paths."""
        found = _matches(self.old, entries)
        if not found:
            raise self._none(self.old, entries)
        changes = {path: [(fill(self.new, wild), entries[path])] for path, wild in found.items()}
        return self._renamed(entries, changes)

    def inverse(self) -> Rule:
        """Return the renaming back."""
        return Rename(self.new, self.old)


@dataclasses.dataclass(frozen=True)
class Drop(Rule):
    """Leave arrays out; they may be absent.

    Args:
        pattern: a pattern of paths.
    """

    pattern: str

    def apply(self, entries: Entries) -> Entries:
        """Return the entries that do not match."""
        found = _matches(self.pattern, entries)
        return {path: entry for path, entry in entries.items() if path not in found}

    def inverse(self) -> Rule:
        """Return a rule that changes nothing: what was dropped does not come back."""
        return Keep()


@dataclasses.dataclass(frozen=True)
class Keep(Rule):
    """Change nothing: the inverse of rules that drop what a model does not have."""

    def apply(self, entries: Entries) -> Entries:
        """Return the entries as they are."""
        return entries

    def inverse(self) -> Rule:
        """Return itself."""
        return self


@dataclasses.dataclass(frozen=True)
class Add(Rule):
    """Add a constant array under a path: what one side has and the other does not need.

    Args:
        path: its path.
        value: a NumPy array.
    """

    path: str
    value: Any = dataclasses.field(compare=False)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries and the constant."""
        value = np.asarray(self.value)
        entry = Entry(value.shape, value.dtype.name, (), lambda: value)
        return {**entries, self.path: entry}

    def inverse(self) -> Rule:
        """Return the rule that drops the constant."""
        return Drop(self.path)


class _Each(Rule):
    """A rule that changes each array that matches, where it is."""

    pattern: str

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the matching ones changed."""
        found = _matches(self.pattern, entries)
        if not found:
            raise self._none(self.pattern, entries)
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
        if sorted(a % ndim if ndim else a for a in axes) != list(range(ndim)):
            raise ValueError(f"{self}: '{path}' is {entry}, whose axes {axes} do not permute.")
        axes = tuple(a % ndim for a in axes)

        def permuted(x: np.ndarray) -> np.ndarray:
            return x.transpose(*axes, *range(ndim, x.ndim))  # of random keys the data stays behind

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
        axes = tuple(_axis(self, path, entry, a) for a in self.axes)
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
        return apply(lambda x: x.reshape(*shape, *x.shape[ndim:]), entry, shape)

    def inverse(self) -> Rule:
        """Return the change back."""
        return Reshape(self.pattern, self.new, self.old)


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

    def __post_init__(self):
        _check_number("Stack", self.old, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the numbered ones stacked."""
        at = wildcards(self.old).index("#")
        stacks: dict[str, dict[int, str]] = {}
        for path, wild in _matches(self.old, entries).items():
            rest = wild[:at] + wild[at + 1 :]
            stacks.setdefault(fill(self.new, rest), {})[int(wild[at])] = path
        if not stacks:
            raise self._none(self.old, entries)
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for to, numbered in stacks.items():
            missing = sorted(set(range(max(numbered) + 1)) - set(numbered))
            if missing:
                raise ValueError(f"{self}: for '{to}' the numbers {missing} are missing.")
            paths = [numbered[i] for i in range(len(numbered))]
            parts = _alike(self, paths, entries)
            changes |= {path: [] for path in paths}
            changes[paths[0]] = [(to, _stacked(self, to, parts, self.axis))]
        return self._renamed(entries, changes)

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

    def __post_init__(self):
        _check_number("Unstack", self.new, self.old)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the stacked ones taken apart."""
        at = wildcards(self.new).index("#")
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for path, wild in _matches(self.old, entries).items():
            entry = entries[path]
            axis = _axis(self, path, entry, self.axis)
            shape = entry.shape[:axis] + entry.shape[axis + 1 :]
            changes[path] = [
                (
                    fill(self.new, (*wild[:at], str(i), *wild[at:])),
                    apply(lambda x, i=i, axis=axis: x.take(i, axis), entry, shape),
                )
                for i in range(entry.shape[axis])
            ]
        if not changes:
            raise self._none(self.old, entries)
        return self._renamed(entries, changes)

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

    def __post_init__(self):
        for pattern in self.old:
            check_same_wildcards("Merge", pattern, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the parts of each whole concatenated."""

        def whole(to: str, parts: list[Entry]) -> Entry:
            axis = _axis(self, to, parts[0], self.axis)
            shapes = [part.shape for part in parts]
            for part in parts[1:]:
                if _without(part.shape, axis) != _without(shapes[0], axis):
                    raise ValueError(f"{self}: for '{to}' shapes differ: {shapes}.")
            shape = list(shapes[0])
            shape[axis] = sum(shape[axis] for shape in shapes)
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

    def __post_init__(self):
        for pattern in self.new:
            check_same_wildcards("Split", self.old, pattern)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, the fused ones split."""
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for path, wild in _matches(self.old, entries).items():
            entry = entries[path]
            axis = _axis(self, path, entry, self.axis)
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
            raise self._none(self.old, entries)
        return self._renamed(entries, changes)

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

    def __post_init__(self):
        for pattern in self.old:
            check_same_wildcards("Sum", pattern, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, those of each sum added up."""

        def whole(to: str, parts: list[Entry]) -> Entry:
            if len({part.shape for part in parts}) > 1:
                raise ValueError(f"{self}: for '{to}' shapes differ: {[p.shape for p in parts]}.")
            return combine(sum, parts, parts[0].shape)

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

    def __post_init__(self):
        for pattern in self.new:
            check_same_wildcards("Share", self.old, pattern)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries, each that matches beside its zeros."""
        changes: dict[str, list[tuple[str, Entry]]] = {}
        for path, wild in _matches(self.old, entries).items():
            entry = entries[path]
            first, *others = (fill(pattern, wild) for pattern in self.new)
            zeros = apply(np.zeros_like, entry, entry.shape)
            changes[path] = [(first, entry), *((to, zeros) for to in others)]
        if not changes:
            raise self._none(self.old, entries)
        return self._renamed(entries, changes)

    def inverse(self) -> Rule:
        """Return the sum."""
        return Sum(self.new, self.old)


def inverse(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return the mapping that leads back: the inverse rules in the opposite order.

    Args:
        rules: a mapping, such as that from PyTorch's paths and layouts to those of a model.

    Examples:
        >>> from oryxstate import mapping
        >>> mapping.inverse([mapping.Rename("a.**", "b.**"), mapping.Transpose("b.w", (1, 2, 0))])
        (Transpose(pattern='b.w', axes=(2, 0, 1)), Rename(old='b.**', new='a.**'))
    """
    return tuple(rule.inverse() for rule in reversed(rules))


def _matches(pattern: str, entries: Entries) -> dict[str, tuple[str, ...]]:
    found = {path: match(pattern, path) for path in entries}
    return {path: wild for path, wild in found.items() if wild is not None}


def _joined(rule: Rule, old: tuple[str, ...], new: str, entries: Entries, whole: Any) -> Entries:
    """Replace groups of entries, one for each value of the wildcards, by one entry each."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for pattern in old:
        for path, wild in _matches(pattern, entries).items():
            groups.setdefault(wild, {})[pattern] = path
    if not groups:
        raise rule._none(old[0], entries)
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
    return rule._renamed(entries, changes)


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
    at = axis % (len(shape) + 1)
    return combine(lambda xs: np.stack(xs, at), parts, (*shape[:at], len(parts), *shape[at:]))


def _axis(rule: Rule, path: str, entry: Entry, axis: int) -> int:
    ndim = len(entry.shape)
    if not -ndim <= axis < ndim:
        raise ValueError(f"{rule}: '{path}' is {entry}, which has no axis {axis}.")
    return axis % ndim


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
