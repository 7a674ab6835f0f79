"""Values for an annotation."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument, ResolutionFailed

from oryxstate._annotations import _hints
from oryxstate.testing import _arrays, _hypothesis
from oryxstate.testing._bound import is_plain
from oryxstate.testing._dimensions import Scope, Sizes, scopes

# By the number of arguments; those of JAX are pickled by their names.
_FUNCTIONS: dict[int, list[Callable[..., Any]]] = {
    1: [jax.nn.identity, jnp.tanh, jax.nn.relu, jnp.sin],
    2: [jnp.hypot, jnp.arctan2],
}
UNSAID = "has no annotation that says what it is"
_DEEP = 3  # nested modules; below, containers are empty and a union draws its first member
_ENDLESS = 4 * _DEEP  # modules of one class, each in the one before


class NoStrategy(TypeError):
    """An annotation does not say which values fit it."""


class Place(NamedTuple):
    """The name of a drawn value, for messages.

    Attributes:
        name: such as "field `kernel` of Dense".
        remedy: how to give a strategy for it.
    """

    name: str
    remedy: str

    def error(self, reason: str) -> NoStrategy:
        """Make the error for a value that cannot be drawn."""
        return NoStrategy(f"{self.name} {reason}. Give a strategy for it: {self.remedy}.")


@dataclasses.dataclass(frozen=True)
class Drawing:
    """The context in which one example is drawn.

    Attributes:
        draw: the `draw` function of Hypothesis.
        scope: the lengths of named axes.
        failed: the number of refused examples of each class, until one is accepted.
        around: the classes of the enclosing modules.
    """

    draw: Any
    scope: Scope
    failed: dict[type, Any] = dataclasses.field(default_factory=dict)
    around: tuple[type, ...] = ()

    @property
    def deep(self) -> bool:
        """Whether so many modules are around that there should be no more."""
        return len(self.around) > _DEEP

    def inside(self) -> Drawing:
        """Return the drawing for a module inside, which has its own names of axes."""
        return dataclasses.replace(self, scope=self.scope.inner())

    def within(self, kind: type) -> Drawing:
        """Return the drawing for the fields of a module."""
        return dataclasses.replace(self, around=(*self.around, kind))

    def choose(self, kinds: Sequence[Any]) -> Any:
        """Draw one of several annotations; deep inside, the first that is none of those around."""
        if not self.deep:
            return self.draw(st.sampled_from(kinds))
        others = (kind for kind in kinds if (typing.get_origin(kind) or kind) not in self.around)
        return next(others, kinds[0])

    def attempt(self, draw: Any) -> Drawing:
        """Return the drawing for an example that may be refused; it leaves this scope unchanged."""
        return dataclasses.replace(self, draw=draw, scope=self.scope.copy())


def values(hint: Any, *, sizes: Sizes | Mapping[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Return a strategy of the values that fit an annotation.

    Args:
        hint: an annotation of arrays; a module class; `PyTree[...]`; a union, `Literal`, tuple,
            list or dict of such; a number, from -10 to 10; `Callable`, of which there are some
            functions of JAX that can be pickled; anything else that `st.from_type` knows.
        sizes: lengths of axes by name.

    Examples:
        >>> from hypothesis import find
        >>> from jaxtyping import Array, Float
        >>> from oryxstate.testing import values
        >>> find(values(tuple[Float[Array, "n"], Float[Array, "n"]]), lambda pair: True)
        (Array([0.], dtype=float32), Array([0.], dtype=float32))
    """
    place = Place("`values`", "there are those of `hypothesis.strategies`")
    return values_at(hint, place, sizes)


def values_at(
    hint: Any, place: Place, sizes: Sizes | Mapping[str, Any] | None = None
) -> st.SearchStrategy[Any]:
    """Return a strategy of `values`, with the place to name in errors."""
    return _values(hint, place, scopes(sizes), {})


@st.composite
def _values(
    draw: Any, hint: Any, place: Place, scopes: st.SearchStrategy[Scope], failed: dict
) -> Any:
    return draw_value(Drawing(draw, draw(scopes), failed), hint, place)


_CLASSES: dict[type, Callable[[Drawing, Any], Any]] = {}


def draws(kind: type) -> Callable[[Callable[[Drawing, Any], Any]], Callable[[Drawing, Any], Any]]:
    """Register the function that draws instances of a class and its subclasses."""

    def register(function: Callable[[Drawing, Any], Any]) -> Callable[[Drawing, Any], Any]:
        _CLASSES[kind] = function
        return function

    return register


def draw_value(drawing: Drawing, hint: Any, place: Place) -> Any:
    """Draw one value of an annotation.

    Raises:
        NoStrategy: if the annotation does not say which values fit it.
    """
    draw, hint = drawing.draw, _hints.meant(hint)
    if isinstance(hint, _hints.Unresolved):
        raise place.error(f"is annotated `{hint.text}`, which has no meaning here ({hint.error})")
    if _arrays.is_array_hint(hint):
        return _arrays.draw_array(draw, hint, drawing.scope, _arrays.Policy())
    if isinstance(hint, type) and issubclass(hint, jaxtyping.PyTree):
        return _pytree(drawing, hint, place)
    if isinstance(hint, typing.TypeVar):
        return _type_variable(drawing, hint, place)
    origin = typing.get_origin(hint)
    if _arrays.is_union(hint):
        return draw_value(drawing, drawing.choose(_arrays.arms_of(hint)), place)
    if origin is typing.Annotated:
        given = [extra for extra in hint.__metadata__ if isinstance(extra, st.SearchStrategy)]
        return draw(given[-1]) if given else draw_value(drawing, typing.get_args(hint)[0], place)
    if hint in (Callable, collections.abc.Callable) or origin is collections.abc.Callable:
        return _function(draw, hint, place)
    _expect_arguments(hint, place)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](drawing, typing.get_args(hint), place)
    return _instance(drawing, hint, place)


def says_nothing(hint: Any) -> bool:
    """Return whether an annotation is missing or says nothing."""
    return hint in (Any, object, inspect.Parameter.empty)


def _expect_arguments(hint: Any, place: Place) -> None:
    kind = typing.get_origin(hint) or hint
    bare = not typing.get_args(hint) and hint != tuple[()]
    if bare and any(kind is known for known in (*_CONTAINERS, set, frozenset)):
        raise place.error(f"is annotated `{kind.__name__}`, which does not say what is in it")


def _instance(drawing: Drawing, hint: Any, place: Place) -> Any:
    kind = typing.get_origin(hint) or hint
    if inspect.isclass(kind) and issubclass(kind, jaxtyping.AbstractDtype):
        name = kind.__name__
        raise place.error(f"is annotated `{name}` alone; write `{name}[Array, 'n']`, or the like")
    if drawing.around.count(kind) >= _ENDLESS:
        name = kind.__name__
        raise place.error(f"is a `{name}` that needs another `{name}` inside it, without an end")
    if inspect.isclass(kind) and not _hypothesis.is_registered(kind):
        plain = is_plain(kind)
        for base in kind.__mro__:
            if base in _CLASSES and (plain or base is not object):
                return _CLASSES[base](drawing, hint)
    if hint is None:
        return None
    if kind is typing.Literal:
        return drawing.draw(st.sampled_from(typing.get_args(hint)))
    if hint is int:
        return drawing.draw(st.integers(-10, 10))
    if hint is float:
        return drawing.draw(st.floats(-10, 10, allow_subnormal=False))
    if says_nothing(hint):
        raise place.error(UNSAID)
    try:
        return drawing.draw(st.from_type(hint))
    except (ResolutionFailed, InvalidArgument) as error:
        raise place.error(f"is annotated `{hint!r}`, of which no values are known") from error


def _function(draw: Any, hint: Any, place: Place) -> Any:
    parameters = (typing.get_args(hint) or (...,))[0]
    count = len(parameters) if isinstance(parameters, list) else 1
    if count not in _FUNCTIONS:
        raise place.error(f"is a function of {count} arguments, of which none are known")
    return draw(st.sampled_from(_FUNCTIONS[count]))


def _type_variable(drawing: Drawing, hint: Any, place: Place) -> Any:
    kinds = hint.__constraints__ or (hint.__bound__,)
    if kinds == (None,):
        raise place.error(f"is annotated with the type variable `{hint}`, which may be anything")
    return draw_value(drawing, drawing.choose(kinds), place)


def _count(drawing: Drawing) -> int:
    return 0 if drawing.deep else drawing.draw(st.integers(0, 2))


def _list(drawing: Drawing, hints: tuple, place: Place) -> list[Any]:
    return [draw_value(drawing, hints[0], place) for _ in range(_count(drawing))]


def _tuple(drawing: Drawing, hints: tuple, place: Place) -> tuple[Any, ...]:
    if len(hints) == 2 and hints[1] is ...:
        return tuple(_list(drawing, hints, place))
    return tuple(draw_value(drawing, hint, place) for hint in hints)


def _dict(drawing: Drawing, hints: tuple, place: Place) -> dict[Any, Any]:
    names = "abc" if hints[0] is str else None
    return {
        names[i] if names else draw_value(drawing, hints[0], place): draw_value(
            drawing, hints[1], place
        )
        for i in range(_count(drawing))
    }


_CONTAINERS: dict[Any, Callable[[Drawing, tuple, Place], Any]] = {
    list: _list,
    collections.abc.Sequence: lambda *given: tuple(_list(*given)),  # static fields are hashable
    tuple: _tuple,
    dict: _dict,
    collections.abc.Mapping: _dict,
}


def _pytree(drawing: Drawing, hint: Any, place: Place) -> Any:
    """Draw a tree of the structure that the annotation names, leaf by leaf."""
    leaf_hint, names = getattr(hint, "leaftype", jax.Array), getattr(hint, "structure", None)
    leaf_hint = jax.Array if leaf_hint is Any else leaf_hint
    tree = 0
    for name in (names or "...").split():
        part = _structure(drawing, name)
        tree = jax.tree.map(
            lambda _, part=part: jax.tree.unflatten(part, [0] * part.num_leaves), tree
        )
    count = jax.tree.structure(tree).num_leaves
    around, leaves = drawing.scope.leaf, []
    for i in range(count):
        drawing.scope.leaf = _arrays.leaf_name(names, i)
        leaves.append(draw_value(drawing, leaf_hint, place))
    drawing.scope.leaf = around
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _structure(drawing: Drawing, name: str) -> Any:
    known = drawing.scope.trees
    if name in known:
        return known[name]
    made = jax.tree.structure(drawing.draw(_arrays.pytrees(st.just(0))))
    if name != "...":
        known[name] = made
    return made
