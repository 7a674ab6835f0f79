"""The base class of rules, and the rules that change paths alone."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from oryxstate.mapping._entries import Entries, Entry
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

    def none(self, pattern: str, entries: Entries) -> ValueError:
        """Return the error for a pattern that matches nothing."""
        some = ", ".join(list(entries)[:5]) or "none"
        return ValueError(
            f"{self} matches no path: no path is {pattern!r}. There are {len(entries)}: {some}"
            f"{', ...' if len(entries) > 5 else ''}."
        )

    def renamed(self, entries: Entries, changes: dict[str, list[tuple[str, Entry]]]) -> Entries:
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

    def __post_init__(self) -> None:
        check_same_wildcards("Rename", self.old, self.new)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries under their new paths."""
        found = matches(self.old, entries)
        if not found:
            raise self.none(self.old, entries)
        changes = {path: [(fill(self.new, wild), entries[path])] for path, wild in found.items()}
        return self.renamed(entries, changes)

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
        found = matches(self.pattern, entries)
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
    """Add a constant array, which a model has and a file lacks.

    Args:
        path: its path.
        value: a NumPy array.

    Raises:
        ValueError: when applied, if there is already an array at this path.
    """

    path: str
    value: Any = dataclasses.field(compare=False)

    def apply(self, entries: Entries) -> Entries:
        """Return the entries and the constant."""
        value = np.asarray(self.value)
        entry = Entry(value.shape, value.dtype.name, (), lambda: value)
        if self.path in entries:
            raise ValueError(
                f"{self}: there is already {entries[self.path]} at {self.path!r}. Put "
                f"mapping.Drop({self.path!r}) before this rule to replace it."
            )
        return {**entries, self.path: entry}

    def inverse(self) -> Rule:
        """Return the rule that drops the constant."""
        return Drop(self.path)


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


def matches(pattern: str, entries: Entries) -> dict[str, tuple[str, ...]]:
    """Return the paths that match, with what the wildcards stand for."""
    if not wildcards(pattern):  # as in most rules of a library: large models have thousands
        return {pattern: ()} if pattern in entries else {}
    found = {path: match(pattern, path) for path in entries}
    return {path: wild for path, wild in found.items() if wild is not None}


def axis_of(rule: Rule, path: str, entry: Entry, axis: int) -> int:
    """Return an axis counted from the front.

    Raises:
        ValueError: if there is none.
    """
    ndim = len(entry.shape)
    if not -ndim <= axis < ndim:
        raise ValueError(f"{rule}: '{path}' is {entry}, which has no axis {axis}.")
    return axis % ndim
