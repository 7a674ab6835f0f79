"""The values of a pytree at one moment, which later training steps do not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from oryxstate import _jax
from oryxstate._tree import keystr
from oryxstate.checkpoint._manifest import Leaf, scalar_to_text
from oryxstate.checkpoint._pieces import block
from oryxstate.mapping._targets import check_has_value, is_keys, target

Array = Callable[[], np.ndarray]


class Taken(NamedTuple):
    """A leaf at one moment.

    Attributes:
        leaf: its description.
        whole: gives the array, None if it is not whole in this process, or there is none to write.
        pieces: where the pieces that this process writes begin in the array, and these.
        own: whether the array is one of this process alone, which must be equal in all.
    """

    leaf: Leaf
    whole: Array | None = None
    pieces: tuple[tuple[tuple[int, ...], np.ndarray], ...] = ()
    own: bool = False


def snapshot(tree: Any) -> dict[str, Taken]:
    """Take the leaves of a pytree as they are now.

    JAX arrays in host memory are not copied: as long as this holds them, JAX does not reuse their
    memory, also if they are donated. NumPy arrays, which can change, are.

    Returns:
        What is taken of each path.

    Raises:
        TypeError: for a leaf that a checkpoint cannot hold, naming its path.
        ValueError: if two leaves have one path.
    """
    taken: dict[str, Taken] = {}
    for key, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = keystr(key)
        if path in taken:
            raise ValueError(f"two leaves have the path '{path}', so they cannot be told apart.")
        check_has_value(path, leaf)
        if isinstance(leaf, _jax.Tracer):
            raise TypeError(f"'{path}' is being traced: save outside of `jax.jit`.")
        taken[path] = _take(path, leaf)
    return taken


def _take(path: str, leaf: Any) -> Taken:
    spec = target(path, leaf)
    if spec.dtype.startswith("python."):
        return Taken(Leaf(spec.dtype, value=scalar_to_text(spec.dtype, leaf)))
    described = Leaf(spec.dtype, spec.shape)
    if 0 in spec.shape:
        return Taken(described)
    if not isinstance(leaf, jax.Array):
        copy = np.array(leaf)
        return Taken(described, lambda: copy, own=True)
    array = jax.random.key_data(leaf) if is_keys(leaf) else leaf
    if array.is_fully_addressable:
        return Taken(described, _of_this_process(array), own=True)
    if array.is_fully_replicated:
        one = np.asarray(array.addressable_data(0))
        return Taken(described, lambda: one)
    return Taken(described, pieces=tuple(_pieces(array)))


def _of_this_process(array: jax.Array) -> Array:
    if array.is_fully_replicated:
        one = np.asarray(array.addressable_data(0))
        return lambda: one
    pieces = list(_pieces(array))

    def assembled() -> np.ndarray:
        whole = np.empty(array_shape, array_dtype)
        for start, piece in pieces:
            whole[block(start, piece.shape)] = piece
        return whole

    array_shape, array_dtype = array.shape, array.dtype
    return assembled


def _pieces(array: jax.Array) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield the shards of which this process has the first replica."""
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            yield tuple(s.start or 0 for s in shard.index), np.asarray(shard.data)
