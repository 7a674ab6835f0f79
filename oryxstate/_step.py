"""Compiled steps of training, between which the state stays flat.

`jax.jit` takes a model apart and puts it together at each call, in Python, module by module. A step
hands the state on as the tuple of its leaves, and puts it together when somebody looks at it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import jax

from oryxstate import _jax, _tree
from oryxstate._module import _foreign
from oryxstate._module._static import type_key

S = TypeVar("S")
P = ParamSpec("P")
Out = TypeVar("Out")


class _Structure:
    """What a flat state has beside its arrays. Equal ones are one object, compared by identity.

    Attributes:
        treedef: of the state.
        static: the leaves that are not data, by position, such as functions and strings.
    """

    __slots__ = ("__weakref__", "static", "treedef")

    def __init__(self, treedef: Any, static: dict[int, Any]):
        self.treedef, self.static = treedef, static


_structures: weakref.WeakValueDictionary[Any, _Structure] = weakref.WeakValueDictionary()


class Flat(Generic[S]):
    """A state that a step returned: a pytree that is kept as the tuple of its leaves.

    It goes into the next call as it is. As a pytree it has the leaves of the state under their
    paths.

    Args:
        value: the state. Leaves that are neither arrays nor numbers are static: they are compared
            by value and type. In an Equinox module, numbers are static too, as in
            `equinox.filter_jit`.

    Raises:
        TypeError: if a static leaf has no hash, naming its path.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> flat = ox.Flat({"count": jnp.array(0)})
        >>> jax.tree.map(lambda x: x + 1, flat).value
        {'count': Array(1, dtype=int32, weak_type=True)}
    """

    __slots__ = ("_leaves", "_structure")

    def __init__(self, value: S):
        leaves, treedef = jax.tree.flatten(value)
        data = enumerate(zip(leaves, _are_data(value), strict=True))
        static = {i: leaf for i, (leaf, is_data) in data if not is_data}
        key = treedef, tuple((i, leaf, type_key(leaf)) for i, leaf in static.items())
        try:
            self._structure = _structures.setdefault(key, _Structure(treedef, static))
        except TypeError:
            _check_hashes(value, static)
            raise
        self._leaves = tuple(leaf for i, leaf in enumerate(leaves) if i not in static)

    @property
    def value(self) -> S:
        """The state, put together anew each time.

        Raises:
            RuntimeError: if its memory was donated to a later state.
        """
        if any(map(_is_deleted, self._leaves)):
            raise RuntimeError(_DONATED.format(paths=_shown(_deleted(self))))
        return jax.tree.unflatten(self._structure.treedef, _all_leaves(self))

    def __repr__(self) -> str:
        deleted = any(map(_is_deleted, self._leaves))
        return f"Flat({'donated' if deleted else repr(self.value)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Flat, (self.value,)


def _are_data(value: Any) -> Iterator[bool]:
    """Tell of each leaf whether it is an argument of the compiled program."""
    for node in jax.tree.leaves(value, is_leaf=_foreign.is_equinox):
        numbers = () if _foreign.is_equinox(node) else (bool, int, float, complex)
        for leaf in jax.tree.leaves(node):
            yield _tree.is_array(leaf) or isinstance(leaf, numbers)


def _all_leaves(flat: Flat) -> list[Any]:
    leaves = list(flat._leaves)
    for i, leaf in flat._structure.static.items():
        leaves.insert(i, leaf)
    return leaves


def _flatten(flat: Flat) -> tuple[tuple, _Structure]:
    return flat._leaves, flat._structure


def _flatten_with_keys(flat: Flat) -> tuple[list, _Structure]:
    keys = [jax.tree_util.GetAttrKey(path) for path in _paths(flat)]
    return list(zip(keys, flat._leaves, strict=True)), flat._structure


def _unflatten(structure: _Structure, leaves: Any) -> Flat:
    flat = _new(Flat)
    flat._leaves, flat._structure = leaves, structure
    return flat


_new = object.__new__
jax.tree_util.register_pytree_with_keys(Flat, _flatten_with_keys, _unflatten, _flatten)


def _paths(flat: Flat) -> list[str]:
    """Return the paths of the arrays in a state."""
    structure = flat._structure
    places = jax.tree.unflatten(structure.treedef, range(structure.treedef.num_leaves))
    return [path for path, i in _tree.named_leaves(places).items() if i not in structure.static]


class Step(Generic[S, P, Out]):
    """What `oryxstate.step` returns: a compiled step, `state, output = step(state, *args)`."""

    def __init__(
        self,
        function: Callable[Concatenate[S, P], tuple[S, Out]],
        donate: bool,
        static_argnames: str | Sequence[str],
    ):
        functools.update_wrapper(self, function)
        self._donate = donate
        self._compiled = jax.jit(
            _flat(function), donate_argnums=(0,) if donate else (), static_argnames=static_argnames
        )

    def __call__(
        self, state: S | Flat[S], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Flat[S], Out]:
        """Run the step.

        Args:
            state: the state that the step before returned, or the first one.
            *args: the further arguments of the function.
            **kwargs: its keywords.

        Returns:
            The new state and the output. `state.value` is the state as a pytree.

        Raises:
            TypeError: if the function does not return a pair, or a state of another structure.
            RuntimeError: if the state was donated before.
            ValueError: if an array that is to be donated stands in the state twice.
        """
        flat: Any = state if type(state) is Flat else self._first(state)
        try:
            return self._compiled(flat, *args, **kwargs)
        except (RuntimeError, ValueError) as error:
            deleted = _deleted(flat) if self._donate and _jax.is_deletion(error) else []
            if not deleted:
                raise
            raise RuntimeError(_DONATED.format(paths=_shown(deleted))) from error

    def _first(self, state: Any) -> Flat:
        flat = Flat(state)
        if self._donate:
            _check_once(flat)
        return flat


def step(
    function: Callable[Concatenate[S, P], tuple[S, Out]],
    *,
    donate: bool = False,
    static_argnames: str | Sequence[str] = (),
) -> Step[S, P, Out]:
    """Compile a step of training, between whose calls the state stays flat.

    The results are those of `jax.jit(function)`, but a call costs what it costs with a tuple of
    arrays: modules and the optimizer's state are neither taken apart nor put together again.

    Args:
        function: `(state, *args, **kwargs) -> (state, output)`, as the body of `jax.lax.scan`. The
            state is any pytree, such as a model and an optimizer's state, and keeps its structure.
        donate: whether the new state may take the memory of the old one, which is gone then.
        static_argnames: names of arguments that are compared by value, as in `jax.jit`. A state
            with other static fields, or other shapes, is compiled anew by itself.

    Returns:
        The step. Its first argument is the state as a pytree, or what the call before returned: a
        `Flat`, whose `value` is the state as a pytree.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Mean(ox.Module):
        ...     total: jax.Array = ox.state()
        ...     count: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(total=self.total + x, count=self.count + 1)
        ...         return self.total / self.count
        >>> def function(mean, x):
        ...     y, mean = ox.call_and_update(mean, x)
        ...     return mean, y
        >>> step = ox.step(function, donate=True)
        >>> state = Mean(jnp.array(0.0), jnp.array(0))
        >>> for x in 3.0, 5.0:
        ...     state, y = step(state, x)
        >>> float(y), int(state.value.count)
        (4.0, 2)
    """
    return Step(function, donate, static_argnames)


def _flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a flat state."""

    @functools.wraps(function)
    def run(flat: Flat, *args: Any, **kwargs: Any) -> tuple[Flat, Any]:
        out = function(flat.value, *args, **kwargs)
        name = getattr(function, "__name__", repr(function))
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                f"a step returns a pair, `(state, output)`, but `{name}` returned "
                f"{_described(out)}. Return `state, None` if there is no output."
            )
        new = Flat(out[0])
        if new._structure is not flat._structure:
            raise TypeError(_other_structure(name, flat, new, out[1]))
        return new, out[1]

    return run


# Errors -------------------------------------------------------------------------------------------

_DONATED = (
    "this state was donated: the memory of {paths} belongs to the state that a later call "
    "returned. Go on with that one, `state, output = step(state, ...)`, or make the step without "
    "`donate=True`."
)


def _is_deleted(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, _jax.Tracer) and leaf.is_deleted()


def _deleted(flat: Flat) -> list[str]:
    pairs = zip(_paths(flat), flat._leaves, strict=True)
    return [path for path, leaf in pairs if _is_deleted(leaf)]


def _check_hashes(value: Any, static: dict[int, Any]) -> None:
    """Raise for the first static leaf that cannot be compared by value."""
    paths = list(_tree.named_leaves(value))
    for i, leaf in static.items():
        try:
            hash(leaf)
        except TypeError:
            raise TypeError(
                f"`{paths[i]}` of the state is of type {type(leaf).__name__}, which is neither "
                "data for JAX nor hashable, and so cannot be compared between calls. Make it an "
                "array or a hashable value, such as a tuple of strings for a NumPy array of them, "
                "or give it to the function in another way."
            ) from None


def _check_once(flat: Flat) -> None:
    """Refuse a state in which one array stands twice: its memory can be given away only once."""
    seen: dict[int, str] = {}
    for path, leaf in zip(_paths(flat), flat._leaves, strict=True):
        if not isinstance(leaf, jax.Array):
            continue
        if id(leaf) in seen:
            raise ValueError(
                f"`{seen[id(leaf)]}` and `{path}` of the state are the same array, whose memory "
                "can be donated only once. Copy one of them, `jax.tree.map(jnp.copy, part)`, or "
                "do not donate."
            )
        seen[id(leaf)] = path


def _shown(paths: list[str]) -> str:
    more = len(paths) - 3
    named = ", ".join(f"`{path}`" for path in paths[:3])
    return f"{named} and {more} more" if more > 0 else named


def _described(out: Any) -> str:
    if _tree.is_array(out):
        return f"an array, {_tree.make_array_spec(out)}"
    return f"a tuple of {len(out)}" if isinstance(out, tuple) else f"a {type(out).__name__}"


def _other_structure(name: str, old: Flat, new: Flat, output: Any) -> str:
    if jax.tree.structure(output) == old._structure.treedef:
        found = "it stands second. Return `(state, output)`, in this order"
    else:
        found = _difference(old, new)
    return f"`{name}` does not return the state with the structure that it was given: {found}."


def _difference(old: Flat, new: Flat) -> str:
    before, after = (list(_tree.named_leaves(flat.value)) for flat in (old, new))
    lost = [path for path in before if path not in after]
    more = [path for path in after if path not in before]
    if lost or more:
        parts = [f"{_shown(lost)} is missing"] * bool(lost) + [f"{_shown(more)} is new"] * bool(
            more
        )
        return f"{' and '.join(parts)}. Return all of it, and nothing else"
    was, now = old._structure.static, new._structure.static
    changed = [path for i, path in enumerate(before) if was.get(i) != now.get(i)]
    which = f", {_shown(changed)}," if changed else ""
    return (
        f"what is static in it{which} has changed. Leave it as it is, make a number an array, or "
        "change the state between calls, from `state.value`"
    )
