"""Leaves of a model as targets of saved values: which values fit, and their conversion."""

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


def is_weight(leaf: Any) -> bool:
    """Tell whether a leaf is an array, or the spec of one, and not random keys."""
    return (is_array(leaf) or is_spec(leaf)) and not is_keys(leaf)


def is_keys(value: Any) -> bool:
    """Tell whether a value is an array of random keys, or the spec of one."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.extended)


def check_has_value(path: str, leaf: Any) -> None:
    """Raise if a leaf that is to be saved is only a spec.

    Raises:
        TypeError: naming its path.
    """
    if is_spec(leaf):
        raise TypeError(f"'{path}' is the spec of an array, {leaf}, and has no value to save.")


def dtype_name(dtype: Any) -> str:
    """Return a dtype as text: "float32", "key<fry>"."""
    return str(dtype) if jnp.issubdtype(dtype, jax.dtypes.extended) else np.dtype(dtype).name


def problem(entry: Entry, wanted: Target) -> str | None:
    """Return why a saved value does not fit a leaf, None if it does."""
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
    """Return a saved value as a leaf like another, which shares no memory with the value.

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
        sharding = sharding_of(leaf)
        data = jnp.array(value) if _is_here(sharding) else _global(np.asarray(value), sharding)
        return _placed(jax.random.wrap_key_data(data, impl=_tree.key_impl(leaf)), leaf)
    value = _cast(np.asarray(value), np.dtype(leaf.dtype), path)
    if isinstance(leaf, np.ndarray | np.generic):
        return value if isinstance(leaf, np.ndarray) else value[()]
    return _placed(value, leaf)


def put_blocks(value: Any, leaf: Any, path: str) -> jax.Array:
    """Return a saved array as a sharded leaf, of which only the blocks on this process are read.

    Args:
        value: what gives a block as a NumPy array for an index of slices.
        leaf: a leaf of which `blocks_of` is not None.
        path: where it stands, for errors.

    Raises:
        MismatchError: if a number does not fit the dtype.
    """
    dtype = np.dtype(leaf.dtype)
    array = jax.make_array_from_callback(
        tuple(leaf.shape), sharding_of(leaf), lambda index: _cast(value[index], dtype, path)
    )
    return _weak(array, leaf)


def blocks_of(leaf: Any) -> list[Any] | None:
    """Return the indices of the blocks of a leaf on this process, None if it takes all."""
    sharding = sharding_of(leaf) if is_weight(leaf) else None
    if sharding is None or isinstance(leaf, np.ndarray | np.generic):
        return None
    return list(sharding.addressable_devices_indices_map(tuple(leaf.shape)).values())


def sharding_of(leaf: Any) -> Any:
    """Return the sharding that a leaf, or the spec of one, asks for, None if for none."""
    if isinstance(leaf, jax.Array) and not leaf.committed:
        return None
    return getattr(leaf, "sharding", None)


def _is_here(sharding: Any) -> bool:
    return sharding is None or sharding.is_fully_addressable


def _global(value: np.ndarray, sharding: Any) -> jax.Array:
    """Return an array over several processes, each of which has the value."""
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _placed(value: Any, leaf: Any) -> jax.Array:
    """Return an array where that of the leaf is, with its weak type."""
    sharding = sharding_of(leaf)
    if _is_here(sharding):
        array = jax.device_put(value, sharding)
    else:
        array = _global(value, sharding) if isinstance(value, np.ndarray) else value
    return _weak(array, leaf)


def _weak(array: jax.Array, leaf: Any) -> jax.Array:
    weak = getattr(leaf, "weak_type", False)
    return _jax.convert(array, array.dtype, True) if weak else array


def _cast(value: np.ndarray, dtype: np.dtype, path: str) -> np.ndarray:
    """Return a copy of an array in a dtype of the same kind.

    It is a copy also where the dtype is the same. The value may be an array of the caller or the
    memory of a file, and JAX keeps the buffer that it is given where host and device share memory,
    whatever `may_alias` says.
    """
    fits = True
    if value.dtype != dtype and jnp.issubdtype(dtype, jnp.integer) and value.size:
        bounds = jnp.iinfo(dtype)
        fits = bounds.min <= int(value.min()) and int(value.max()) <= bounds.max
    if fits:
        with np.errstate(over="ignore", invalid="ignore"):
            cast = value.astype(dtype, order="C")
        inexact = value.dtype != dtype and jnp.issubdtype(dtype, jnp.inexact)
        if not inexact or (np.isfinite(cast) | ~np.isfinite(value)).all():
            return cast
    saved = "a Python integer" if value.dtype.hasobject else value.dtype.name
    raise MismatchError(
        f"'{path}' holds numbers that {dtype.name} cannot hold; they are saved as {saved}. Restore "
        "into that dtype."
    )
