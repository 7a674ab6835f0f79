"""Leaves of a model that saved values are put into: what fits, and how it is put there."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _jax, _tree
from oryxstate._errors import MismatchError
from oryxstate._tree import is_array, is_spec
from oryxstate.mapping._entries import SCALARS, Entry


class Target(NamedTuple):
    """The shape and dtype of a leaf, as `Entry` has them, and whether it is an array of JAX."""

    shape: tuple[int, ...]
    dtype: str
    of_jax: bool = False

    def __str__(self) -> str:
        return str(Entry(self.shape, self.dtype, (), np.zeros))


def target(path: str, leaf: Any) -> Target:
    """Return the shape and dtype of a leaf.

    Raises:
        TypeError: for a leaf that no file can hold, naming its path.
    """
    if is_array(leaf) or is_spec(leaf):
        of_jax = not isinstance(leaf, np.ndarray | np.generic)
        return Target(tuple(leaf.shape), dtype_name(leaf.dtype), of_jax)
    name = f"python.{type(leaf).__name__}"
    if SCALARS.get(name) is type(leaf):
        return Target((), name)
    raise TypeError(
        f"'{path}' is {type(leaf).__name__}, which a checkpoint does not hold: only arrays, random "
        "keys, and Python numbers, booleans, str and bytes. Turn it into one of these, or leave it "
        "out."
    )


def dtype_name(dtype: Any) -> str:
    """Return a dtype as text: "float32", "key<fry>"."""
    return str(dtype) if jnp.issubdtype(dtype, jax.dtypes.extended) else np.dtype(dtype).name


def problem(entry: Entry, wanted: Target) -> str | None:
    """Say what stands against putting a saved value into a leaf, None if nothing does."""
    if entry.shape != wanted.shape:
        return f"saved {entry}, wanted {wanted}"
    if entry.dtype != wanted.dtype and not casts(entry.dtype, wanted.dtype):
        return f"saved {entry}, wanted {wanted}, and one is not cast to the other"
    narrowed = wanted.of_jax and _is_plain(wanted.dtype)
    if narrowed and jax.dtypes.canonicalize_dtype(wanted.dtype) != wanted.dtype:
        return f"wanted {wanted}, which JAX holds only with `jax_enable_x64`"
    return None


def casts(saved: str, wanted: str) -> bool:
    """Tell whether values are cast from one dtype to another: within floats, integers, ..."""
    return _kind(saved) is not None and _kind(saved) == _kind(wanted)


def _is_plain(dtype: str) -> bool:
    return not dtype.startswith(("python.", "key<"))


def _kind(dtype: str) -> str | None:
    if not _is_plain(dtype):
        kind = dtype.removeprefix("python.")
        return kind if kind in ("bool", "int", "float", "complex") else None
    kinds = {"bool": jnp.bool_, "int": jnp.integer, "float": jnp.floating}
    kinds["complex"] = jnp.complexfloating
    return next((k for k, t in kinds.items() if jnp.issubdtype(np.dtype(dtype), t)), None)


def put(value: Any, leaf: Any, path: str) -> Any:
    """Return a saved value as a leaf like another.

    Args:
        value: a NumPy array, of random keys their data, or a Python scalar.
        leaf: the leaf of a model, or the spec of one: a JAX array comes out for a JAX array and for
            a spec, with its dtype and sharding, a NumPy array for a NumPy array, a Python scalar
            for a Python scalar.
        path: where it stands, for errors.

    Raises:
        MismatchError: if a number does not fit the dtype.
    """
    if not (is_array(leaf) or is_spec(leaf)):
        return value.item() if isinstance(value, np.ndarray | np.generic) else value
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        if value.size == 0:  # and the axes of the data are not known
            spec = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            value = np.empty(jax.eval_shape(jax.random.key_data, spec).shape, np.uint32)
        keys = jax.random.wrap_key_data(jnp.array(value), impl=_tree.key_impl(leaf))
        return _placed(keys, leaf)
    value = _cast(np.asarray(value), np.dtype(leaf.dtype), path)
    if isinstance(leaf, np.ndarray | np.generic):
        return value if isinstance(leaf, np.ndarray) else value[()]
    return _placed(value, leaf)


def _placed(value: Any, leaf: Any) -> jax.Array:
    """Return an array where that of the leaf is, with its weak type."""
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.Array) and not leaf.committed:
        sharding = None
    # A copy: where host and device share memory, JAX keeps the caller's buffer if it is aligned,
    # whatever `may_alias` says, and the caller may change it.
    array = jax.device_put(np.array(value) if isinstance(value, np.ndarray) else value, sharding)
    return _jax.convert(array, array.dtype, True) if getattr(leaf, "weak_type", False) else array


def _cast(value: np.ndarray, dtype: np.dtype, path: str) -> np.ndarray:
    if value.dtype == dtype:
        return value
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(dtype)
    if jnp.issubdtype(dtype, jnp.integer):
        fits = np.array_equal(cast.astype(object), value.astype(object))
    else:
        fits = bool((np.isfinite(cast) | ~np.isfinite(value)).all())
    if not fits:
        raise MismatchError(
            f"'{path}' holds numbers that {dtype.name} cannot hold; they are saved as "
            f"{value.dtype.name}. Restore into that dtype."
        )
    return cast
