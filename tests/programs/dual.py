"""Dual numbers: the derivatives of a program of Python floats, in forward mode.

Perturbations are told apart by tags, so that derivatives nest (Siskind and Pearlmutter 2005,
"Perturbation confusion and referential transparency").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

_tags = itertools.count(1)


class Dual:
    """`value + slope * epsilon`, with the epsilon of one derivative."""

    __slots__ = ("slope", "tag", "value")

    def __init__(self, tag: int, value: Any, slope: Any):
        self.tag, self.value, self.slope = tag, value, slope

    def __add__(self, other):
        tag, (a, da), (b, db) = _common(self, other)
        return Dual(tag, a + b, da + db)

    def __mul__(self, other):
        tag, (a, da), (b, db) = _common(self, other)
        return Dual(tag, a * b, da * b + a * db)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + other * -1.0

    def __rsub__(self, other):
        return -self + other


def _common(one: Any, other: Any) -> tuple[int, tuple, tuple]:
    tag = max(getattr(one, "tag", 0), getattr(other, "tag", 0))
    return tag, _parts(tag, one), _parts(tag, other)


def _parts(tag: int, x: Any) -> tuple[Any, Any]:
    return (x.value, x.slope) if isinstance(x, Dual) and x.tag == tag else (x, 0.0)


def sin(x: Any) -> Any:
    """The sine of a float or a dual number."""
    if isinstance(x, Dual):
        return Dual(x.tag, sin(x.value), x.slope * cos(x.value))
    return math.sin(x)


def cos(x: Any) -> Any:
    """The cosine."""
    if isinstance(x, Dual):
        return Dual(x.tag, cos(x.value), -1.0 * (x.slope * sin(x.value)))
    return math.cos(x)


def constant(x: Any) -> float:
    """The number itself, without any slope."""
    return constant(x.value) if isinstance(x, Dual) else x


def derivative(function: Callable[[Any], tuple[Any, Any]], x: Any) -> tuple[Any, Any, Any]:
    """`(y, slope of y, aux)` of a function `x -> (y, aux)`; `aux` is a tree of tuples and dicts."""
    tag = next(_tags)
    y, aux = function(Dual(tag, x, 1.0))
    return *_parts(tag, y), _without(tag, aux)


def _without(tag: int, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without(tag, value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_without(tag, value) for value in tree)
    return _parts(tag, tree)[0]


def unless_equal(one: Any, other: Any) -> Any:
    """Zero, with the slope NaN in each direction in which the two have different slopes."""
    tag, (a, da), (b, db) = _common(one, other)
    if tag == 0:
        return 0.0
    return Dual(tag, unless_equal(a, b), unless_equal(da, db) if _same(da, db) else math.nan)


def _same(one, other):
    return math.isclose(constant(one), constant(other), rel_tol=1e-9, abs_tol=1e-12)


class MeaninglessError(Exception):
    """A program has no meaning, for example because its examples leave different states."""


class NearlyError(Exception):
    """A branch depends on less than what float32 can tell."""


def above(x: Any, threshold: float) -> bool:
    """Whether x is greater than the threshold, and not nearly equal to it."""
    x = constant(x)
    if math.isnan(x):
        raise MeaninglessError
    if abs(x - threshold) < 1e-3:
        raise NearlyError
    return x > threshold
