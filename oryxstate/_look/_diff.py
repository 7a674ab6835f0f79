"""The difference of two models, by path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _tree
from oryxstate._look import _shown
from oryxstate._select._places import Place, nodes, places

What = Literal["value", "shape", "dtype", "static", "class", "only in a", "only in b"]


class Difference(NamedTuple):
    """What differs at one path.

    Attributes:
        path: of a leaf, a static field or, for "class", a module.
        what: "value", "shape", "dtype", "static", "class", "only in a" or "only in b".
        a: the spec of the array, the value of a static field or the class in the first tree; None
            if there is none.
        b: the same in the second tree.
        norm: of arrays with other values, the Euclidean norm of `a - b`, in float64, where equal
            infinities and NaNs count as zero; else None.
        relative: the norm divided by that of `a`.
    """

    path: str
    what: What
    a: Any
    b: Any
    norm: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        return f"{self.path or '(model)'}: {self._difference()}"

    def _difference(self) -> str:
        if self.what == "value" and self.norm is not None:
            return f"{self.a}, |a - b| = {self.norm:.3g} ({self.relative:.2g} of |a|)"
        if self.what == "value":
            return f"{self.a}, other values"
        a, b = (_text(side) for side in (self.a, self.b))
        if self.what in ("only in a", "only in b"):
            return f"{self.what}, {a if self.what[-1] == 'a' else b}"
        return f"{self.what}, {a} and {b}"


def _text(side: Any) -> str:
    if isinstance(side, str | _tree.ArraySpec):
        return str(side)
    return _shown.text(side, width=10_000)


class Diff(tuple[Difference, ...]):
    """The differences of two trees; empty, so false, if there are none. `print` lists them."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "no difference"


def diff(a: Any, b: Any) -> Diff:
    """Compare two models, or any two trees, by path.

    Args:
        a: a model; abstract arrays are compared by shape and dtype.
        b: another one, of the same structure or not.

    Returns:
        The differences, in the order of the fields of `a`: other values with the norm of the
        difference, other shapes and dtypes, static fields and classes, and what only one of the two
        has. NaN equals NaN; random keys have no norm.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
        >>> ox.diff(model, model)
        no difference
        >>> ox.diff(model, model.at["bias"].set(2.0))
        bias: float32[2], |a - b| = 2.83 (inf of |a|)
    """
    ours, theirs = ({place.path: place for place in _held(tree)} for tree in (a, b))
    found = [*_classes(a, b)]
    for path, place in ours.items():
        found += _compared(place, theirs[path]) if path in theirs else [_only("only in a", place)]
    found += [_only("only in b", place) for path, place in theirs.items() if path not in ours]
    return Diff(found)


def _held(tree: Any) -> Iterable[Place]:
    return (place for place in places(tree) if place.value is not None)


def _classes(a: Any, b: Any) -> Iterable[Difference]:
    """Yield the modules and containers of which another class stands in the other tree."""
    ours, theirs = ({path: type(node) for path, node, _ in nodes(tree)} for tree in (a, b))
    for path, cls in ours.items():
        other = theirs.get(path, cls)
        if other is not cls:
            yield Difference(path, "class", cls.__qualname__, other.__qualname__)


def _only(what: What, place: Place) -> Difference:
    shown = _spec(place)
    return Difference(place.path, what, *((shown, None) if what == "only in a" else (None, shown)))


def _spec(place: Place) -> Any:
    value = place.value
    return _tree.make_array_spec(value) if _is_array(value) else value


def _is_array(value: Any) -> bool:
    return _tree.is_array(value) or _tree.is_spec(value)


def _compared(ours: Place, theirs: Place) -> list[Difference]:
    a, b, path = ours.value, theirs.value, ours.path
    if not (_is_array(a) and _is_array(b)):
        same = type(a) is type(b) and bool(a == b)
        return [] if same else [Difference(path, "static", _spec(ours), _spec(theirs))]
    for what in ("shape", "dtype"):
        if getattr(a, what) != getattr(b, what):
            return [Difference(path, what, _spec(ours), _spec(theirs))]
    if _tree.is_spec(a) or _tree.is_spec(b):
        return []
    return _values(path, a, b)


def _values(path: str, a: Any, b: Any) -> list[Difference]:
    spec = _tree.make_array_spec(a)
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        same = np.array_equal(jax.random.key_data(a), jax.random.key_data(b))
        return [] if same else [Difference(path, "value", spec, spec)]
    x, y = (_numbers(value) for value in (a, b))
    same = (x == y) | ((x != x) & (y != y))
    if same.all():
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        norm = np.linalg.norm(np.ravel(np.where(same, 0, _distance(x, y))))
        relative = norm / np.linalg.norm(np.ravel(x).astype(np.result_type(x, np.float64)))
    return [Difference(path, "value", spec, spec, float(norm), float(relative))]


def _numbers(value: Any) -> np.ndarray:
    """Return the array with nothing rounded: integers as they are, else in double precision."""
    value = np.asarray(value)
    if value.dtype.kind in "iu":
        return value
    return value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)


def _distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "iu":
        return x - y
    high, low = (each.astype(np.uint64) for each in (np.maximum(x, y), np.minimum(x, y)))
    return (high - low).astype(np.float64)  # exact: what wraps around wraps back
