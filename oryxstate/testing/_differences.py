"""The first difference between two pytrees, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SHOWN = 6  # elements to print of an array; of larger arrays, the element that differs most


class Difference(NamedTuple):
    """One leaf in which two pytrees differ.

    Attributes:
        path: where it is, a key path.
        got: the value in the first pytree, in words.
        want: the value in the second.
    """

    path: tuple
    got: str
    want: str


def difference(got: Any, want: Any, tolerance: float | None = None) -> Difference | None:
    """Return the first leaf in which two pytrees differ in path, shape, dtype or value.

    Args:
        got: a pytree of arrays and other values.
        want: another.
        tolerance: how far inexact numbers may be apart, in parts of the largest one of the leaf, or
            of 1 if that is smaller. By default two thirds of the digits of their dtype agree.
            Integers, booleans and random keys are equal; NaN is equal to NaN.

    Returns:
        The difference, or None if there is none.
    """
    return _first(got, want, lambda mine, other: _of_values(mine, other, tolerance))


def type_difference(got: Any, want: Any) -> Difference | None:
    """Return the first leaf in which two pytrees differ in path, shape, dtype or weak type."""

    def of_types(mine: Any, other: Any) -> tuple[str, str] | None:
        types = _type(mine), _type(other)
        return None if types[0] == types[1] else types

    return _first(got, want, of_types)


def _first(got: Any, want: Any, compare: Callable[..., Any]) -> Difference | None:
    mine, other = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (got, want))
    for path in [*other, *(path for path in mine if path not in other)]:
        if path not in mine:
            return Difference(path, "missing", "there")
        if path not in other:
            return Difference(path, "there", "missing")
        found = compare(mine[path], other[path])
        if found is not None:
            return Difference(path, *found)
    return None


def _of_values(got: Any, want: Any, tolerance: float | None) -> tuple[str, str] | None:
    if not (_is_number(got) and _is_number(want)):
        same = got is want or (type(got) is type(want) and bool(got == want))
        return None if same else (repr(got), repr(want))
    got, want = jnp.asarray(got), jnp.asarray(want)
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        return spec(got), spec(want)
    allowed = _allowed(want, tolerance)
    mine, other = numbers(got), numbers(want)
    apart = _apart(mine, other)
    if not (apart > allowed).any():
        return None
    if apart.size <= SHOWN:
        return _printed(mine), _printed(other)
    index = np.unravel_index(np.argmax(apart), apart.shape)
    at = f" at index {list(map(int, index))}"
    return _printed(mine[index]) + at, _printed(other[index])


def _apart(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Return distances of numbers: 0 if they are the same, infinity if one is not finite."""
    if got.dtype == bool:
        return (got != want).astype(float)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(np.asarray(got - want, complex if got.dtype.kind == "c" else float))
    same = (got == want) | ((got != got) & (want != want))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _allowed(want: jax.Array, tolerance: float | None) -> float:
    if not jnp.issubdtype(want.dtype, jnp.inexact):
        return 0.0
    by_default = float(jnp.finfo(want.dtype).eps) ** (2 / 3)
    return (by_default if tolerance is None else tolerance) * size_of(numbers(want))


def size_of(values: np.ndarray) -> float:
    """Return the largest finite number of an array, at least 1."""
    sizes = np.abs(values[np.isfinite(values)])
    return max(1.0, float(sizes.max(initial=0)))


def numbers(array: Any) -> np.ndarray:
    """Return the values of an array in a dtype that NumPy calculates with: float64 for bfloat16."""
    if is_key(array):
        array = jax.random.key_data(array)
    kind = jnp.issubdtype(array.dtype, jnp.floating)
    return np.asarray(array).astype(np.float64) if kind else _wide(np.asarray(array))


def _wide(array: np.ndarray) -> np.ndarray:
    """Convert integers to a dtype in which a difference does not wrap."""
    return array.astype(object) if array.dtype.kind in "iu" else array


def is_key(value: Any) -> bool:
    """Return whether a value is an array of typed random keys."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _is_number(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _type(leaf: Any) -> str:
    if not _is_number(leaf):
        return type(leaf).__name__
    weak = getattr(jax.typeof(leaf), "weak_type", False)
    return f"{spec(leaf)}, weakly typed" if weak else spec(leaf)


def spec(array: Any) -> str:
    """Format dtype and shape: `float32[3,4]`."""
    array = jax.typeof(array)
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"


def _printed(values: np.ndarray) -> str:
    return np.array2string(np.asarray(values), separator=", ", precision=8).replace("\n", "")
