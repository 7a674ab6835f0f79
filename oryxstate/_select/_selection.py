"""Selections: what they are made of, and what they select in a tree."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from oryxstate._select import _patterns
from oryxstate._select._nothing import all_parts, check, did_you_mean, there_are
from oryxstate._select._places import PARAM, STATIC, Place, places

T = TypeVar("T")


class Selection:
    """Some leaves of any tree: those at a path, of a field, in modules of a class, of a kind.

    Made by the functions of `oryxstate.select`, and combined: `a | b` selects what either does, `a
    & b` what both do, `a - b` what only `a` does, and `~a` everything else. A string stands for
    `select.path`, and a class for `select.instances`, wherever a selection is expected.

    Static fields, which are not leaves, are selected only by a selection in which `select.static`
    occurs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, select
        >>> chain = nn.Dense.of(4) >> nn.BatchNorm.of() >> nn.Dense.of(2)
        >>> model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
        >>> (select.params - select.field("bias") - nn.BatchNorm).paths(model)
        ['layers[0].kernel', 'layers[2].kernel']
        >>> select.state.count(model)
        8
    """

    def holds(self, place: Place) -> bool:
        """Whether a place is selected."""
        raise NotImplementedError

    def parts(self) -> Sequence[Selection]:
        """The selections that this one is made of."""
        return ()

    def hint(self, found: list[Place]) -> str:
        """What somebody may have meant by a selection that selects none of these places."""
        return ""

    typed = False
    """Whether a word in it may be misspelt, so that it has to be found, wherever it occurs."""

    of_leaves = False
    """Whether it can be asked about leaves alone."""

    # Combinations -----------------------------------------------------------------------------

    def __or__(self, other: Any) -> Selection:
        return Union(self, selection(other))

    def __ror__(self, other: Any) -> Selection:
        return Union(selection(other), self)

    def __and__(self, other: Any) -> Selection:
        return Intersection(self, selection(other))

    def __rand__(self, other: Any) -> Selection:
        return Intersection(selection(other), self)

    def __sub__(self, other: Any) -> Selection:
        return Intersection(self, Complement(selection(other)))

    def __rsub__(self, other: Any) -> Selection:
        return Intersection(selection(other), Complement(self))

    def __invert__(self) -> Selection:
        return Complement(self)

    # What is selected in a tree ---------------------------------------------------------------

    def paths(self, tree: Any) -> list[str]:
        """The paths of what is selected in a tree, as `oryxstate.named_leaves` writes them.

        Raises:
            ValueError: if nothing is selected, with what was meant by a misspelt path.
        """
        return [place.path for place in self.select(tree)]

    def get(self, tree: Any) -> dict[str, Any]:
        """What is selected in a tree, by path.

        Raises:
            ValueError: if nothing is selected.
        """
        return {place.path: place.value for place in self.select(tree)}

    def count(self, tree: Any) -> int:
        """The number of elements of the selected arrays; a random key is one element.

        Raises:
            ValueError: if nothing is selected.
        """
        sizes = (getattr(place.value, "shape", ()) for place in self.select(tree))
        return sum(int(np.prod(shape, dtype=int)) for shape in sizes)

    def mask(self, tree: T) -> T:
        """A tree of booleans, true for the selected leaves: what optax takes as a mask.

        Args:
            tree: a model, or what `oryxstate.partition` made of it.

        Returns:
            The same structure with a boolean for each leaf.

        Raises:
            ValueError: if nothing is selected.

        Examples:
            >>> import jax, jax.numpy as jnp, optax
            >>> import oryxstate as ox
            >>> from oryxstate import nn, select
            >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
            >>> select.field("kernel").mask(model).bias
            False
            >>> optimizer = optax.adamw(1e-3, mask=select.field("kernel").mask)
        """
        selected = {place.path for place in self.select(tree) if place.is_leaf}
        mask = [place.path in selected for place in places(tree) if place.is_leaf]
        return jax.tree.unflatten(jax.tree.structure(tree), mask)

    def select(self, tree: Any) -> list[Place]:
        """The selected places of a tree.

        Raises:
            ValueError: if there are none, or a path or a field in this selection is nowhere.
        """
        found = list(places(tree))
        statics = any(part is static for part in all_parts(self))
        asked = [p for p in found if (statics if p.kind == STATIC else p.is_leaf)]
        chosen = [place for place in asked if self.holds(place)]
        check(self, found, asked, chosen)
        return chosen


def selection(given: Any) -> Selection:
    """A selection, a pattern of a path or a class, as a selection.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(given, Selection):
        return given
    if isinstance(given, str):
        return Path((given,))
    if isinstance(given, type):
        return Instances((given,))
    raise TypeError(
        f"a selection is made by `ox.select`, or is a path or a class, got {given!r}. Write "
        "`ox.select.path('encoder.**.kernel')`, `ox.select.field('kernel')`, "
        "`ox.select.where(lambda path, leaf: ...)`, or combine them with `|`, `&`, `-` and `~`."
    )


# What selections are made of ----------------------------------------------------------------------


class Path(Selection):
    """What lies at a path."""

    typed = True

    def __init__(self, patterns: tuple[str, ...]):
        self.patterns = patterns
        self._segments = tuple(map(_patterns.segments, patterns))

    def holds(self, place: Place) -> bool:
        """Whether a pattern names the place, or what it lies in."""
        keys = _patterns.keys_of(place.path)
        return any(_patterns.matches(pattern, keys) for pattern in self._segments)

    def parts(self) -> Sequence[Selection]:
        """The patterns, one by one."""
        return [Path((p,)) for p in self.patterns] if len(self.patterns) > 1 else ()

    def hint(self, found: list[Place]) -> str:
        """The patterns that are nearest to this one."""
        paths = [p.path for p in found if p.kind != STATIC or p.value is not None]
        known = [*paths[:4], *(["..."] if paths[4:] else [])]
        near = _patterns.near_misses(self.patterns[0], paths)
        return did_you_mean(near) or there_are("paths", known)

    def __repr__(self) -> str:
        return f"select.path({', '.join(map(repr, self.patterns))})"


class Field(Selection):
    """What is in a field of one of these names, or inside what is in it."""

    typed = True

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def holds(self, place: Place) -> bool:
        """Whether one of the names is in the path, as an attribute."""
        keys = _patterns.keys_of(place.path)
        return any(key.form == "name" and key.key in self.names for key in keys)

    def hint(self, found: list[Place]) -> str:
        """The names of fields that are nearest to these."""
        keys = {key for place in found for key in _patterns.keys_of(place.path)}
        known = sorted({key.key for key in keys if key.form == "name"})
        near = [n for name in self.names for n in difflib.get_close_matches(name, known, n=2)]
        return did_you_mean(near) or there_are("fields", known)

    def __repr__(self) -> str:
        return f"select.field({', '.join(map(repr, self.names))})"


class Instances(Selection):
    """What is in modules of these classes."""

    def __init__(self, classes: tuple[type, ...]):
        self.classes = classes

    def holds(self, place: Place) -> bool:
        """Whether the place is in a module of one of the classes."""
        return any(issubclass(cls, self.classes) for cls in place.inside)

    def hint(self, found: list[Place]) -> str:
        """The classes in the tree."""
        present = sorted({c.__name__ for place in found for c in place.inside} - _CONTAINERS)
        names = [c.__name__ for c in self.classes]
        near = [n for name in names for n in difflib.get_close_matches(name, present, n=2)]
        return did_you_mean(near, quote=str) or there_are("classes", present)

    def __repr__(self) -> str:
        return f"select.instances({', '.join(c.__name__ for c in self.classes)})"


_CONTAINERS = {"list", "tuple", "dict", "Variables"}


class Kind(Selection):
    """Everything of one kind: param, state or static."""

    kind: str
    shown: str

    def __init__(self, kind: str, shown: str):
        self.kind, self.shown = kind, shown

    def holds(self, place: Place) -> bool:
        """Whether the place is of the kind."""
        return place.kind == self.kind

    def hint(self, found: list[Place]) -> str:
        """The kinds of which there is something."""
        return there_are("leaves of kind", sorted({p.kind for p in found if p.is_leaf}))

    def __repr__(self) -> str:
        return f"select.{self.shown}"


class Where(Selection):
    """What satisfies a predicate."""

    of_leaves = True

    def __init__(self, function: Callable[[str, Any], Any]):
        self.function = function

    def holds(self, place: Place) -> bool:
        """Whether the predicate is true of the place."""
        return place.value is not None and bool(self.function(place.path, place.value))

    def __repr__(self) -> str:
        return f"select.where({getattr(self.function, '__name__', self.function)})"


class Union(Selection):
    """What is in one selection or another."""

    def __init__(self, *of: Selection):
        self.of = of

    def holds(self, place: Place) -> bool:
        """Whether one of the selections holds the place."""
        return any(part.holds(place) for part in self.of)

    def parts(self) -> Sequence[Selection]:
        """The selections."""
        return self.of

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.of))})"


class Intersection(Union):
    """What is in all of several selections."""

    def holds(self, place: Place) -> bool:
        """Whether all of the selections hold the place."""
        return all(part.holds(place) for part in self.of)

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.of))})"


class Complement(Selection):
    """What is not in a selection."""

    def __init__(self, of: Selection):
        self.of = of

    def holds(self, place: Place) -> bool:
        """Whether the selection does not hold the place."""
        return not self.of.holds(place)

    def parts(self) -> Sequence[Selection]:
        """The selection."""
        return (self.of,)

    def __repr__(self) -> str:
        return f"~{self.of!r}"


params: Selection = Kind(PARAM, "params")
state: Selection = Kind("state", "state")
static: Selection = Kind(STATIC, "static")


def names_kind(given: Selection) -> bool:
    """Whether a kind occurs in a selection."""
    return any(isinstance(part, Kind) for part in all_parts(given))
