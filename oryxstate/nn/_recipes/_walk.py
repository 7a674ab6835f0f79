"""Traversal of a model's layers, with the rules that lead to each from another library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from oryxstate._module import _pytree
from oryxstate._tree import named_leaves
from oryxstate.mapping._groups import Stack
from oryxstate.mapping._rule import Add, Rename, Rule
from oryxstate.mapping._targets import is_weight
from oryxstate.nn._combinators import Serial
from oryxstate.nn._recurrent import RecurrentCell
from oryxstate.nn._repeat import Repeat

Recipe = Callable[[Any, str, str], list[Rule]]  # (layer, its path, the path over there)


class Library:
    """The names and layouts of another library.

    Args:
        recipes: for each class of layers, the rules that lead to one.
        join: returns the path of a member from that of its parent and its name or number.
        leaf: returns the path of an array of a module without recipe from its joined path.
        flat: whether the members of a sequence stand under their numbers, without `layers`.
    """

    def __init__(
        self,
        recipes: Mapping[type, Recipe],
        join: Callable[[str, str | int], str],
        leaf: Callable[[str], str] = str,
        flat: bool = False,
    ):
        self.recipes, self.join, self.leaf, self.flat = recipes, join, leaf, flat

    def rules(self, value: Any, ours: str = "", theirs: str = "") -> list[Rule]:
        """Return the rules for all weights in a value.

        Args:
            value: a model, or a part of one, whose arrays may be specs.
            ours: its path.
            theirs: its path in the other library.
        """
        if not _pytree.is_module(value):
            return self._inside(value, ours, theirs)
        if isinstance(value, Repeat):
            return self._repeated(value, ours, theirs)
        recipe = next((self.recipes[c] for c in type(value).__mro__ if c in self.recipes), None)
        return self._inside(value, ours, theirs) if recipe is None else recipe(value, ours, theirs)

    def _inside(self, value: Any, ours: str, theirs: str) -> list[Rule]:
        """Return the rules for the modules and weights directly inside a value."""
        found: list[Rule] = []
        skipped = 1 if self.flat and isinstance(value, Serial) else 0  # its field `layers`
        inner, _ = jax.tree_util.tree_flatten_with_path(
            value, is_leaf=lambda part: part is not value and _pytree.is_module(part)
        )
        for key, part in inner:
            here, there = (ours + jax.tree_util.keystr(key)).removeprefix("."), theirs
            for name in map(_name, key[skipped:]):
                there = there if name == "" else self.join(there, name)
            if _pytree.is_module(part):
                found += self.rules(part, here, there)
            elif is_weight(part):
                found += to(self.leaf(there), here)
        return found

    def _repeated(self, repeat: Repeat, ours: str, theirs: str) -> list[Rule]:
        """Return the rules for each of the named layers, and the one that stacks them."""
        one = jax.eval_shape(lambda layers: jax.tree.map(lambda x: x[0], layers), repeat.layers)
        here, there = under(ours, "layers"), theirs if self.flat else self.join(theirs, "layers")
        found: list[Rule] = []
        for i in range(repeat.count):
            found += self.rules(one, f"{here}@{i}", self.join(there, i))
        return [*found, Stack(f"{here}@#.**", f"{here}.**")]


def under(path: str, name: str) -> str:
    """Return the path of a field."""
    return f"{path}.{name}" if path else name


def to(theirs: str, ours: str, *rules: Callable[[str], Rule]) -> list[Rule]:
    """Return rules that change the layout of an array, and then rename it."""
    renamed = [Rename(theirs, ours)] if theirs != ours else []
    return [*(rule(theirs) for rule in rules), *renamed]


def resting(cell: RecurrentCell, ours: str) -> list[Rule]:
    """Return the rules that give a cell a carry of zeros, which other libraries do not keep."""
    return [
        Add(under(ours, f"carry{path}"), np.zeros(leaf.shape, leaf.dtype))
        for path, leaf in named_leaves(cell.carry).items()
    ]


def _name(part: Any) -> str | int:
    for attribute in ("name", "idx", "key"):
        if hasattr(part, attribute):
            return getattr(part, attribute)
    return str(part)
