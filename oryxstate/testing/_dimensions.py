"""Lengths of axes, from the names of axes in jaxtyping annotations."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hypothesis import reject
from hypothesis import strategies as st

Length = int | tuple[int, ...]

_lengths = st.integers(1, 4)
# Mostly lengths that differ; those of one example for all of its strategies.
_few = st.shared(st.sampled_from(((1,), *[(2, 3, 4, 1)] * 3)), key="oryxstate few sizes")
_shapes = st.lists(_lengths, max_size=2).map(tuple)


class Sizes:
    """Names of axes with their lengths, for several strategies of one test.

    Strategies that draw with one `Sizes` in one test case share one length for each name. A plain
    mapping binds names too, but each strategy draws the names that it leaves open by itself.

    Args:
        lengths: an integer for each name, a tuple for a variadic one (`*batch`), or a strategy of
            these; other names get a length of 1 to 4, or up to two axes.

    Examples:
        >>> from hypothesis import given
        >>> from jaxtyping import Array, Float
        >>> from oryxstate.testing import Sizes, arrays
        >>> sizes = Sizes({"c": 3})
        >>> kernels = arrays(Float[Array, "b c"], sizes=sizes)
        >>> @given(kernels, arrays(Float[Array, "b"], sizes=sizes))
        ... def test(kernel, bias):
        ...     assert kernel.shape == (len(bias), 3)
        >>> test()
    """

    def __init__(self, lengths: Mapping[str, Any] | None = None):
        self.lengths: dict[str, Any] = dict(lengths or {})
        self._scopes = st.shared(_scope(self.lengths), key=self)

    def __repr__(self) -> str:
        return f"Sizes({self.lengths!r})"


@dataclasses.dataclass
class Scope:
    """The lengths of named axes in one call or in the fields of one module, as in jaxtyping.

    Attributes:
        given: lengths that hold for the modules inside too.
        axes: lengths by name.
        variadic: shapes by the name of a variadic axis.
        trees: structures by the name in `PyTree[..., "T"]`.
        leaf: which leaf of such a structure is drawn, for axes named `?n`.
        leading: axes before those of each array.
        arguments: for axes such as `{self.size}`.
        lengths: the lengths of axes one after another, instead of drawn ones.
    """

    given: dict[str, Length]
    axes: dict[str, int] = dataclasses.field(default_factory=dict)
    variadic: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    trees: dict[str, Any] = dataclasses.field(default_factory=dict)
    leaf: str | None = None
    leading: tuple[int, ...] = ()
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    lengths: Iterator[int] | None = None

    def __post_init__(self) -> None:
        for name, length in self.given.items():
            self.bind(name, length)

    def bind(self, name: str, length: Length) -> None:
        """Bind a name to a length, unless it is bound."""
        known: dict[str, Any] = self.variadic if isinstance(length, tuple) else self.axes
        known.setdefault(name, length)

    def inner(self) -> Scope:
        """Return the scope of a module inside, which has its own names in jaxtyping."""
        return Scope(self.given, lengths=self.lengths)

    def length(self, draw: Any) -> int:
        """Draw the length of an axis."""
        return draw(_lengths) if self.lengths is None else next(self.lengths)

    def shape(self, draw: Any) -> tuple[int, ...]:
        """Draw the lengths of the axes that a variadic one stands for."""
        if self.lengths is None:
            return draw(_shapes)
        return tuple(next(self.lengths) for _ in range(draw(st.integers(0, 2))))

    def copy(self) -> Scope:
        """Copy the scope; names bound in the copy are not bound here."""
        known = {name: dict(getattr(self, name)) for name in _BOUND}
        return dataclasses.replace(self, **known)

    def take(self, other: Scope) -> None:
        """Bind the names that a copy has bound."""
        for name in _BOUND:
            getattr(self, name).update(getattr(other, name))


_BOUND = ("axes", "variadic", "trees")


def scopes(sizes: Sizes | Mapping[str, Any] | None) -> st.SearchStrategy[Scope]:
    """Return a strategy of the scope that a strategy with these sizes draws in."""
    return sizes._scopes if isinstance(sizes, Sizes) else _scope(dict(sizes or {}))


@st.composite
def _scope(draw: Any, lengths: dict[str, Any]) -> Scope:
    drawn = {n: draw(v) if isinstance(v, st.SearchStrategy) else v for n, v in lengths.items()}
    for name, length in drawn.items():
        each = length if isinstance(length, tuple) else (length,)
        if not all(type(n) is int and n >= 0 for n in each):
            raise TypeError(
                f"sizes: `{name}` must be an integer that is not negative, or a tuple of such for "
                f"a variadic axis (`*{name}`), got {length!r}."
            )
    return Scope(drawn)


@st.composite
def _few_scopes(draw: Any) -> Scope:
    return Scope({}, lengths=itertools.cycle(draw(_few)))


class FewSizes(Sizes):
    """Names of axes whose lengths make few different shapes, for which functions are compiled.

    All lengths are 1, or names have different ones, as far as four go. Each strategy draws the
    names for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scopes = _few_scopes()


class Axis(NamedTuple):
    """One word of an annotation's shape.

    Attributes:
        text: the name, or the expression.
        variadic: `*name` or `...`, any number of axes.
        broadcastable: `#name`, may be 1 instead.
        anonymous: `_` or `...`, not the same as any other.
        of_leaf: `?name`, of each leaf of a `PyTree`.
    """

    text: str
    variadic: bool = False
    broadcastable: bool = False
    anonymous: bool = False
    of_leaf: bool = False

    @property
    def named(self) -> bool:
        """Whether it is a name that arrays share."""
        return self.text.isidentifier() and not self.anonymous


@functools.cache
def axes_of(shape: str) -> tuple[Axis, ...]:
    """Return the axes of an annotation's shape, which jaxtyping has found to be valid.

    Examples:
        >>> [axis.text for axis in axes_of("*batch #n rows=3 n+1")]
        ['batch', 'n', '3', 'n+1']
    """
    return tuple(map(_axis, shape.split()))


def _axis(word: str) -> Axis:
    if word == "...":
        return Axis("", variadic=True, anonymous=True)
    marks: dict[str, bool] = {}
    names = {"*": "variadic", "#": "broadcastable", "_": "anonymous", "?": "of_leaf"}
    while word and (word[0] in names or word.count("=") == 1):
        if word[0] in names:
            marks[names[word[0]]] = True
            word = word[1:]
        else:  # documents a length, `rows=3`
            word = word.partition("=")[2]
    return Axis(word, **marks)


def draw_shape(draw: Any, shape: str, scope: Scope) -> tuple[int, ...]:
    """Draw lengths for all axes, and bind the names that have none yet."""
    lengths = [n for axis in axes_of(shape) for n in _axis_lengths(draw, axis, scope)]
    return (*scope.leading, *lengths)


def _axis_lengths(draw: Any, axis: Axis, scope: Scope) -> tuple[int, ...]:
    name = _name(axis, scope)
    if axis.variadic:
        if axis.anonymous:
            return scope.shape(draw)
        if name not in scope.variadic:
            scope.variadic[name] = scope.shape(draw)
        lengths = scope.variadic[name]
        if axis.broadcastable:  # fewer axes, and some of length 1
            kept = draw(st.integers(0, len(lengths)))
            lengths = tuple(draw(st.sampled_from((1, n))) for n in lengths[len(lengths) - kept :])
        return lengths
    if axis.anonymous:
        return (scope.length(draw),)
    length = _named(draw, name, scope) if axis.named else _computed(draw, axis.text, scope)
    return (draw(st.sampled_from((1, length))) if axis.broadcastable else length,)


def _named(draw: Any, name: str, scope: Scope) -> int:
    if name not in scope.axes:
        scope.axes[name] = scope.length(draw)
    return scope.axes[name]


def _name(axis: Axis, scope: Scope) -> str:
    if not axis.of_leaf:
        return axis.text
    if scope.leaf is None:
        raise TypeError(
            f"the axis `?{axis.text}` has a length for each leaf of a pytree. Use it in one that "
            "has a structure, as `PyTree[Float[Array, '?n'], 'T']`."
        )
    return scope.leaf + axis.text


def _computed(draw: Any, expression: str, scope: Scope) -> int:
    """Return the length that an expression such as `n + 1` or `{self.size}` has."""
    if "{" in expression:
        try:
            expression = eval(f"f'{expression}'", dict(scope.arguments))
        except (NameError, AttributeError) as error:
            raise TypeError(
                f"the axis `{expression}` cannot be computed here: {error}. Give a strategy for "
                "what has this annotation."
            ) from None
    for node in ast.walk(ast.parse(expression, mode="eval")):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            _named(draw, node.id, scope)
    length = eval(expression, dict(scope.axes))
    if length != int(length) or length < 0:
        reject()
    return int(length)
