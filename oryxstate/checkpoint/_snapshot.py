"""The values of a pytree at one moment, which later training steps do not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from oryxstate import _jax
from oryxstate._tree import keystr
from oryxstate.checkpoint._manifest import Leaf, scalar_to_text
from oryxstate.mapping._targets import check_has_value, is_keys, target

Array = Callable[[], np.ndarray]


def snapshot(tree: Any) -> dict[str, tuple[Leaf, Array | None]]:
    """Take the leaves of a pytree as they are now.

    JAX arrays in host memory are not copied: as long as this holds them, JAX does not reuse their
    memory, also if they are donated. NumPy arrays, which can change, are.

    Returns:
        For each path its description, and how to get the array, None if there is none to write.

    Raises:
        TypeError: for a leaf that a checkpoint cannot hold, naming its path.
        ValueError: if two leaves have one path, or an array is not on this host alone.
    """
    taken: dict[str, tuple[Leaf, Array | None]] = {}
    for key, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = keystr(key)
        if path in taken:
            raise ValueError(f"two leaves have the path '{path}', so they cannot be told apart.")
        check_has_value(path, leaf)
        if isinstance(leaf, _jax.Tracer):
            raise TypeError(f"'{path}' is being traced: save outside of `jax.jit`.")
        taken[path] = _take(path, leaf)
    return taken


def _take(path: str, leaf: Any) -> tuple[Leaf, Array | None]:
    spec = target(path, leaf)
    if spec.dtype.startswith("python."):
        return Leaf(spec.dtype, value=scalar_to_text(spec.dtype, leaf)), None
    described = Leaf(spec.dtype, spec.shape)
    if 0 in spec.shape:
        return described, None
    if isinstance(leaf, jax.Array):
        if is_keys(leaf):
            leaf = jax.random.key_data(leaf)
        return described, _of_jax(path, leaf)
    copy = np.array(leaf)
    return described, lambda: copy


def _of_jax(path: str, leaf: jax.Array) -> Array:
    if not leaf.is_fully_addressable:
        raise ValueError(f"'{path}' is on several hosts; checkpoints are of one process.")
    if leaf.is_fully_replicated:
        one = np.asarray(leaf.addressable_data(0))
        return lambda: one
    shards = [(s.index, np.asarray(s.data)) for s in leaf.addressable_shards if s.replica_id == 0]

    def assembled() -> np.ndarray:
        whole = np.empty(leaf_shape, leaf_dtype)
        for index, data in shards:
            whole[index] = data
        return whole

    leaf_shape, leaf_dtype = leaf.shape, leaf.dtype
    return assembled
