"""Shardings in the types of arrays: meshes with explicit axes, the default of `jax.make_mesh`.

There an operation has to know the sharding of its output, and JAX asks where several would do. An
array's sharding is spoken of as its `entries`: for each axis the names of the mesh axes that it is
split along. Without a mesh, and on automatic or manual axes, nothing here does anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from oryxstate import _jax

Entries = tuple[tuple[str, ...], ...]


def is_explicit(*xs: Any) -> bool:
    """Tell whether the types of any of these arrays have a sharding."""
    return _mesh(xs) is not None


def _aval(x: Any) -> Any:
    return x if _is_aval(x) else jax.typeof(x)


def _is_aval(x: Any) -> bool:
    return hasattr(x, "sharding") and not isinstance(x, jax.Array)


def _mesh(xs: Sequence[Any]) -> Any:
    for x in xs:
        mesh = getattr(getattr(_aval(x), "sharding", None), "mesh", None)
        if mesh is not None and not mesh.empty and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def mesh_of(x: Any) -> Any:
    """Return the mesh with explicit axes in the type of an array, None if there is none."""
    return _mesh((x,))


def entries(x: Any) -> Entries:
    """Return the mesh axes of each axis of an array."""
    aval = _aval(x)
    spec = getattr(getattr(aval, "sharding", None), "spec", None) or ()
    found = [e if isinstance(e, tuple) else () if e is None else (e,) for e in spec]
    return (*found, *((),) * (len(aval.shape) - len(found)))


def sharding(like: Sequence[Any], wanted: Entries) -> NamedSharding | None:
    """Return a sharding on the mesh of any of these arrays, None if none has one."""
    mesh = _mesh(like)
    return (
        None if mesh is None else NamedSharding(mesh, PartitionSpec(*(e or None for e in wanted)))
    )


def placed(x: Any, wanted: Entries, *like: Any) -> Any:
    """Return an array with these entries, on its mesh or that of the others."""
    if entries(x) == wanted:
        return x
    target = sharding((x, *like), wanted)
    return x if target is None else jax.sharding.reshard(x, target)


def whole(x: Any) -> Any:
    """Return an array that is not split along any axis of one example."""
    return placed(x, ((),) * len(jax.typeof(x).shape))


def alike(x: Any, like: Any) -> Any:
    """Return an array with the sharding of another one, or of an aval, of its shape."""
    like = here(like)
    return placed(x, entries(like), like)


def settled(x: Any) -> Any:
    """Return an array whose derivatives have its sharding too.

    JAX does not give it to the derivative of a convolution with a batch of one example.
    """
    target = sharding((x,), entries(x))
    return x if target is None else jax.sharding.reshard(x, target)


def here(x: Any) -> Any:
    """Return an aval as it is inside a `shard_map`, whole along its axes; an array as it is."""
    if not _is_aval(x) or _mesh((x,)) is None:
        return x
    mesh = jax.sharding.get_abstract_mesh()
    manual = {
        n
        for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Manual
    }
    if not manual:
        return x
    left = (tuple(n for n in names if n not in manual) or None for names in entries(x))
    return x.update(sharding=NamedSharding(mesh, PartitionSpec(*left)))


def resized(aval: Any, shape: Sequence[int], wanted: Entries) -> Any:
    """Return an aval with another shape, and these entries where its type has a sharding."""
    target = sharding((aval,), wanted)
    options = {} if target is None else {"sharding": target}
    return aval.update(shape=tuple(shape), **options)


def busy(*xs: Entries) -> set[str]:
    """Return the mesh axes in these entries, and those of the `vmap`s around."""
    return {name for each in xs for names in each for name in names} | _jax.mapped_mesh_axes()


def devices(x: Any, names: Sequence[str]) -> int:
    """Return the number of devices along some mesh axes of an array."""
    mesh = _mesh((x,))
    return 1 if mesh is None else math.prod(mesh.shape[name] for name in names)


def without(x: Any, taken: set[str]) -> Any:
    """Gather an array along some mesh axes, such as those of the batch that it is used for."""
    left = tuple(tuple(name for name in names if name not in taken) for names in entries(x))
    return placed(x, left)


def along_first(x: Any, mapped: Sequence[Any], dims: Sequence[int | None]) -> Any:
    """Split the first axis of `x` as a `vmap` splits the examples of other arrays."""
    like, dim = next((y, d) for y, d in zip(mapped, dims, strict=True) if d is not None)
    return placed(x, (entries(like)[dim], *entries(x)[1:]), like)
