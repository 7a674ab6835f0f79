"""Changes of what is selected in a tree: `model.at[selection]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _tree
from oryxstate._select._places import Place, places, with_leaves, with_statics
from oryxstate._select._selection import Selection, selection

T = TypeVar("T")


class At(Generic[T]):
    """A tree, of which `at[selection]` is a part that can be read and changed."""

    def __init__(self, tree: T):
        self._tree = tree

    def __getitem__(self, given: Any) -> Selected[T]:
        """Return the part that a selection selects: a `Selection`, a path or a class."""
        return Selected(self._tree, selection(given))

    def __repr__(self) -> str:
        return f"<at of {type(self._tree).__name__}>"


class Selected(Generic[T]):
    """What a selection selects in a tree. Every change gives a new tree.

    Args:
        tree: a model, or any other pytree.
        selection: what of it.
    """

    def __init__(self, tree: T, selection: Selection):
        self._tree, self._selection = tree, selection

    def paths(self) -> list[str]:
        """Return the paths of what is selected.

        Raises:
            ValueError: if nothing is selected, as every method here.
        """
        return self._selection.paths(self._tree)

    def get(self) -> dict[str, Any]:
        """Return what is selected, by path."""
        return self._selection.get(self._tree)

    def count(self) -> int:
        """Return the number of elements of the selected arrays."""
        return self._selection.count(self._tree)

    def set(self, value: Any) -> T:
        """Put other values in the selected places, of the shape and dtype that they have.

        Args:
            value: a number or an array for each selected leaf, which is broadcast if it is a
                scalar; for static fields any value that they can hold. A dictionary gives each
                place its own, by path.

        Raises:
            TypeError: for a value that is not an array, naming the path.
            ValueError: for another shape or dtype, or if a dictionary has not exactly the selected
                paths.

        Examples:
            >>> import jax, jax.numpy as jnp
            >>> import oryxstate as ox
            >>> from oryxstate import nn
            >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
            >>> model.at["kernel"].set(0.5).kernel.sum()
            Array(3., dtype=float32)
        """
        chosen = self._selection.select(self._tree)
        if not isinstance(value, Mapping):
            return self._with(chosen, lambda place: _fitted(value, place))
        given, wanted = set(value), {place.path for place in chosen}
        if given != wanted:
            missing, extra = sorted(wanted - given), sorted(given - wanted)
            raise ValueError(
                f"`set` got values for other paths than {self._selection!r} selects: missing "
                f"{missing or 'none'}, not selected {extra or 'none'}."
            )
        return self._with(chosen, lambda place: _fitted(value[place.path], place))

    def apply(self, function: Callable[[Any], Any]) -> T:
        """Put `function(value)` in each selected place; shapes and dtypes may change.

        Of a `jax.ShapeDtypeStruct` the function gives another one, by `jax.eval_shape`.

        Examples:
            >>> import jax, jax.numpy as jnp
            >>> import oryxstate as ox
            >>> from oryxstate import nn, select
            >>> chain = nn.Dense.of(2) >> nn.Dropout.of(0.5)
            >>> model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
            >>> model.at[select.static & "**.rate"].apply(lambda rate: rate / 2)
            Serial(layers=(Dense(kernel=f32[3,2], bias=f32[2]), Dropout(rate=0.25)))
        """

        def applied(place: Place) -> Any:
            if isinstance(place.value, jax.ShapeDtypeStruct):
                return jax.eval_shape(function, place.value)
            return function(place.value)

        return self._with(self._selection.select(self._tree), applied)

    def cast(self, dtype: Any) -> T:
        """Give the selected floating-point arrays another dtype; everything else stays as it is.

        Args:
            dtype: a floating-point dtype; complex arrays stay as they are.

        Raises:
            TypeError: for another dtype.
        """
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"`cast` takes a floating-point dtype, got {dtype!r}.")

        def casting(x: Any) -> Any:
            floating = _tree.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
            return jnp.asarray(x, dtype) if floating else x

        return self.apply(casting)

    def take(self, other: T) -> T:
        """Put what another tree has in the selected places: to reset state, or to copy weights.

        Args:
            other: a tree that has the selected paths, with the same shapes and dtypes.

        Raises:
            TypeError: if it has no array at one of the paths, but for example None.
            ValueError: if it lacks one of the paths, or has another shape or dtype there.

        Examples:
            >>> import jax, jax.numpy as jnp
            >>> import oryxstate as ox
            >>> from oryxstate import select
            >>> class Counter(ox.Module):
            ...     count: jax.Array = ox.state()
            ...     def call(self):
            ...         self.assign(count=self.count + 1)
            >>> fresh = Counter(jnp.array(0))
            >>> used = ox.update(fresh)
            >>> int(used.count), int(used.at[select.state].take(fresh).count)
            (1, 0)
        """
        chosen = self._selection.select(self._tree)
        held = {place.path: place for place in places(other)}
        missing = [place.path for place in chosen if place.path not in held]
        if missing:
            raise ValueError(f"`take` found no such paths in the other tree: {', '.join(missing)}.")
        return self._with(chosen, lambda place: _fitted(held[place.path].value, place))

    def _with(self, chosen: list[Place], new: Callable[[Place], Any]) -> T:
        values = {place.path: new(place) for place in chosen}
        leaves = [place for place in places(self._tree) if place.is_leaf]
        statics = {place.path for place in chosen if not place.is_leaf}
        tree = with_leaves(
            self._tree,
            {i: values[p.path] for i, p in enumerate(leaves) if p.path in values},
        )
        return with_statics(tree, {path: values[path] for path in statics})


def _fitted(value: Any, place: Place) -> Any:
    """Return a value for a place, with the shape and the dtype of what stands there."""
    old = place.value
    if not _tree.is_array(old):
        return value
    if isinstance(value, jax.ShapeDtypeStruct):
        if (value.shape, value.dtype) != (old.shape, old.dtype):
            raise ValueError(f"`{place.path}` is {_show(old)}, and was given {_show(value)}.")
        return value
    if not (_tree.is_array(value) or isinstance(value, bool | int | float | complex)):
        value = _listed(value, place)
    aval = old if isinstance(old, jax.ShapeDtypeStruct) else jax.typeof(jnp.asarray(old))
    where = f"`{place.path}`"
    if np.ndim(value) or not old.shape:
        return _tree.conform_leaf(value, aval, where)
    scalar = jax.ShapeDtypeStruct((), aval.dtype)
    return jnp.broadcast_to(_tree.conform_leaf(value, scalar, where), old.shape)


def _listed(value: Any, place: Place) -> jax.Array:
    """Return an array of a list of numbers.

    Raises:
        TypeError: for anything else.
    """
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"`{place.path}` is {_show(place.value)}, and was given {value!r}. Give a number or an "
            "array of this shape and dtype; where several places are selected, a dictionary of "
            "them by path. `apply` may change shapes and dtypes."
        ) from error


def _show(value: Any) -> Any:
    return _tree.make_array_spec(value)
