"""Shapes, dtypes and paths of values, and the check that a new value fits an old one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _explicit, _jax


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class ArraySpec:
    """The shape and dtype of an array that need not exist.

    Args:
        shape: the lengths of the axes; an int stands for one axis, an array or a
            `jax.ShapeDtypeStruct` for its own shape and dtype.
        dtype: the dtype, float32 by default.

    Raises:
        TypeError: if the shape is not made of integers, or the dtype is none.
        ValueError: if a length is negative.

    Examples:
        >>> from oryxstate import ArraySpec
        >>> ArraySpec((8, 4)), ArraySpec(3, "int32")
        (float32[8,4], int32[3])
        >>> ArraySpec([1, 2]) == ArraySpec((1, 2))
        True
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __init__(self, shape: Any = (), dtype: Any = None):
        if hasattr(shape, "shape") and not isinstance(shape, np.integer):  # which is a length
            dtype = shape.dtype if dtype is None else dtype
            shape = shape.shape
        object.__setattr__(self, "shape", _axes(shape))
        object.__setattr__(self, "dtype", _dtype("float32" if dtype is None else dtype))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"

    def __iter__(self) -> NoReturn:
        raise TypeError("an ArraySpec is not a sequence: iterate over its `shape`")


Shape = ArraySpec


def _axes(shape: Any) -> tuple[int, ...]:
    try:
        axes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        lengths = tuple(int(n.__index__()) for n in axes)
    except (TypeError, AttributeError):
        raise TypeError(f"a shape is an integer or a sequence of integers, got {shape!r}") from None
    if any(n < 0 for n in lengths):
        raise ValueError(f"the lengths of axes are not negative, got {shape!r}")
    return lengths


def _dtype(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return np.dtype(dtype)


def make_array_spec(value: Any) -> Any:
    """Return the `ArraySpec` of each leaf: arrays, scalars, `jax.ShapeDtypeStruct`s, specs.

    Raises:
        TypeError: if a leaf has no shape and dtype, naming its path.

    Examples:
        >>> from oryxstate import make_array_spec
        >>> import jax.numpy as jnp
        >>> make_array_spec({"x": jnp.zeros((2, 3)), "n": 1})
        {'n': int32[], 'x': float32[2,3]}
    """
    return jax.tree_util.tree_map_with_path(_leaf_spec, value)


def _leaf_spec(path: tuple, leaf: Any) -> ArraySpec:
    if isinstance(leaf, ArraySpec):
        return leaf
    if isinstance(leaf, (bool, int, float, complex)):
        leaf = jnp.result_type(leaf), ()
        return ArraySpec(leaf[1], leaf[0])
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        raise TypeError(f"{keystr(path) or 'the value'} is not an array and has no shape: {leaf!r}")
    return ArraySpec(leaf.shape, leaf.dtype)


def abstract(value: Any) -> Any:
    """Return the pytree with `jax.ShapeDtypeStruct` leaves, as `jax.eval_shape` wants them."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), make_array_spec(value))


def keystr(path: tuple) -> str:
    """Return a key path as one writes it: `encoder.layers[3].norm`."""
    return jax.tree_util.keystr(path).removeprefix(".")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of a model by path, for looking at them and for saving them.

    Args:
        tree: a module, or any pytree.

    Returns:
        A new dictionary from paths as one writes them to leaves, in the order of the fields.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Norm(ox.Module):
        ...     mean: jax.Array = ox.state()
        >>> class Net(ox.Module):
        ...     layers: list[Norm]
        >>> list(ox.named_leaves(Net([Norm(jnp.zeros(2)), Norm(jnp.ones(2))])))
        ['layers[0].mean', 'layers[1].mean']
    """
    return {keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def is_array(value: Any) -> bool:
    """Tell whether JAX computes with it: an array, a NumPy array or scalar, or the shape of one."""
    if isinstance(value, jax.Array | jax.ShapeDtypeStruct):
        return True
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "OSUMm"


def key_impl(key: Any) -> Any:
    """Return the generator of a random key, or of the type of one."""
    found: Any = None

    def note(key: Any) -> Any:
        nonlocal found
        found = jax.random.key_impl(key)
        return key

    jax.eval_shape(note, jax.ShapeDtypeStruct(key.shape, key.dtype))
    return found


def partition(tree: Any, mask: Any) -> tuple[Any, Any]:
    """Split a pytree by a mask of its structure; each part has None for the leaves of the other."""
    kept = jax.tree.map(lambda keep, x: x if keep else None, mask, tree)
    return kept, jax.tree.map(lambda keep, x: None if keep else x, mask, tree)


def combine(part: Any, other: Any) -> Any:
    """Put together what `partition` split."""
    return jax.tree.map(lambda x, y: y if x is None else x, part, other, is_leaf=_is_none)


def _is_none(value: Any) -> bool:
    return value is None


def is_spec(value: Any) -> bool:
    """Tell whether a value stands for an array that need not exist."""
    return isinstance(value, ArraySpec | jax.ShapeDtypeStruct)


def conform(value: Any, avals: tuple, treedef: Any, where: str) -> tuple:
    """Return the leaves of `value` with the types of `avals`: what a variable may be given.

    Python scalars and weakly typed values are cast, as in arithmetic with it; nothing else.

    Raises:
        ValueError: if structure, shape or dtype differ, naming `where`.
    """
    leaves, given = jax.tree.flatten(value)
    if given != treedef:
        raise ValueError(
            f"{where} was given a value of another structure: declared {treedef}, got {given}. The "
            "structure of state cannot change: every update keeps it."
        )
    return tuple(conform_leaf(leaf, aval, where) for leaf, aval in zip(leaves, avals, strict=True))


def conform_leaf(leaf: Any, aval: Any, where: str) -> Any:
    """One leaf of `conform`."""
    if not isinstance(leaf, jax.Array):
        leaf = _from_host(leaf, aval, where)
    new, weak = jax.typeof(leaf), getattr(aval, "weak_type", False)
    if new.shape != aval.shape:
        raise ValueError(
            f"{where} was given shape {new.shape}, but it has shape {aval.shape}. The shape "
            "cannot change: reduce or broadcast the value first."
        )
    if new.sharding != getattr(aval, "sharding", None):
        leaf = _explicit.alike(leaf, aval)
    if new.dtype == aval.dtype and getattr(new, "weak_type", False) == weak:
        return leaf
    if new.dtype != aval.dtype and not _casts_silently(new, aval):
        raise ValueError(
            f"{where} was given dtype {new.dtype}, but it has dtype {aval.dtype}. The dtype "
            f"cannot change: cast the value, `value.astype({str(aval.dtype)!r})`."
        )
    return _jax.convert(leaf, aval.dtype, weak)


def _from_host(leaf: Any, aval: Any, where: str) -> Any:
    """Return an array of a Python scalar or a NumPy array, which has the value that it had.

    Raises:
        ValueError: if the dtype of `aval` cannot hold the value.
    """
    scalar = type(leaf) in (int, float, complex)
    casts = scalar and _casts_silently(jax.typeof(jnp.asarray(type(leaf)())), aval)
    numbers = isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "iufc"
    if (casts or numbers) and not _holds(aval.dtype, leaf):
        raise ValueError(
            f"{where} was given {leaf!r}, which its dtype {aval.dtype} cannot hold "
            f"({_range(aval.dtype)}). Give a value in this range, or declare another dtype."
        )
    return jnp.asarray(leaf, aval.dtype if casts else None)


def _holds(dtype: Any, value: Any) -> bool:
    """Tell whether no number overflows in a dtype; true where there is nothing to overflow."""
    if not jnp.issubdtype(dtype, jnp.number):
        return True
    if jnp.issubdtype(dtype, jnp.integer):
        numbers, bounds = np.asarray(value), jnp.iinfo(dtype)
        if numbers.size == 0 or numbers.dtype.kind in "fc":  # which is another error
            return True
        return bounds.min <= numbers.min() and numbers.max() <= bounds.max
    real = jnp.finfo(dtype).dtype
    try:
        parts = [np.asarray(part, np.float64) for part in (np.real(value), np.imag(value))]
    except OverflowError:  # a Python integer beyond every float
        return False
    with np.errstate(over="ignore"):
        cast = [part.astype(real).astype(np.float64) for part in parts]
    return all((np.isfinite(c) | ~np.isfinite(p)).all() for c, p in zip(cast, parts, strict=True))


def _range(dtype: Any) -> str:
    bounds = jnp.iinfo(dtype) if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo(dtype)
    return f"{bounds.min} to {bounds.max}"


def _casts_silently(new: Any, aval: Any) -> bool:
    if not getattr(new, "weak_type", False):
        return False
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    rank = [i for t in (new, aval) for i, k in enumerate(kinds) if jnp.issubdtype(t.dtype, k)]
    return len(rank) == 2 and rank[0] <= rank[1] and (rank[0] > 0 or rank[1] == 0)
