"""Operations of layers that say how their outputs are sharded, on meshes with explicit axes.

A parameter is first gathered along the mesh axes that its use needs for the batch (as FSDP does),
and keeps the others (tensor parallelism); the output has the batch's axes and these. Everywhere
else they are the plain operations.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from oryxstate import _explicit


def used(parameter: jax.Array, *leading: _explicit.Entries) -> jax.Array:
    """Gather a parameter along the mesh axes of the batch: those given and those of `vmap`s."""
    if not _explicit.is_explicit(parameter):
        return parameter
    return _explicit.without(parameter, _explicit.busy(*leading))


def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `x @ kernel`, for a kernel with two axes."""
    if not _explicit.is_explicit(x, kernel):
        return x @ kernel
    *leading, contracted = _explicit.entries(x)
    kernel = used(kernel, tuple(leading))
    rows, columns = _explicit.entries(kernel)
    if rows and contracted and rows != contracted:
        columns = tuple(name for name in columns if name not in contracted)
        kernel = _explicit.placed(kernel, (contracted, columns))
    out = _explicit.sharding((x, kernel), (*leading, columns))
    contract = ((x.ndim - 1,), (0,)), ((), ())
    return lax.dot_general(x, kernel, contract, out_sharding=out)


def einsum(equation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `jnp.einsum(equation, x, kernel)`, where `kernel` has no ellipsis."""
    if not _explicit.is_explicit(x, kernel):
        return jnp.einsum(equation, x, kernel)
    operands, y = equation.replace(" ", "").split("->")
    letters, own = operands.split(",")
    of_x = dict(zip(_axes(letters, x.ndim), _explicit.entries(x), strict=True))
    out_axes = _axes(y, x.ndim - len(letters.replace("...", "")) + len(y.replace("...", "")))
    kernel = used(kernel, tuple(of_x[a] for a in out_axes if a in of_x))
    of_kernel = dict(zip(own, _explicit.entries(kernel), strict=True))
    for axis in of_x.keys() & of_kernel.keys():  # x decides about axes of both
        of_kernel[axis] = of_x[axis] if axis in out_axes else of_x[axis] and of_kernel[axis]
    kernel = _explicit.placed(kernel, tuple(of_kernel.values()))
    wanted = tuple(of_x.get(a) or of_kernel.get(a, ()) for a in out_axes)
    return jnp.einsum(equation, x, kernel, out_sharding=_explicit.sharding((x, kernel), wanted))


def _axes(letters: str, ndim: int) -> list[Any]:
    """Return the axes of an operand, those of the ellipsis as negative numbers."""
    first, dots, rest = letters.partition("...")
    many = ndim - len(first + rest) if dots else 0
    return [*first, *range(-many, 0), *rest]


def along(vector: jax.Array, x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return a vector, or an array for several axes, as it is added to `x` along `axes`."""
    if not _explicit.is_explicit(vector, x):
        return vector
    of_x = _explicit.entries(x)
    others = tuple(e for i, e in enumerate(of_x) if i - x.ndim not in axes and i not in axes)
    vector, taken = used(vector, others), {name for names in of_x for name in names}
    free = [tuple(n for n in own if n not in taken) for own in _explicit.entries(vector)]
    wanted = zip((of_x[a] for a in axes), free, strict=True)
    return _explicit.placed(vector, tuple(theirs or own for theirs, own in wanted), x)


def where(mask: jax.Array, x: jax.Array, other: Any) -> jax.Array:
    """Return `jnp.where(mask, x, other)`, of the shape and the sharding of `x`."""
    if not _explicit.is_explicit(mask, x):
        return jnp.where(mask, x, other)
    mask, other = (jnp.broadcast_to(v, x.shape) for v in (mask, other))
    return jnp.where(_explicit.alike(mask, x), x, _explicit.alike(other, x))


def split_last(x: jax.Array, count: int) -> jax.Array:
    """Split the last axis, `[..., count * features]`, in two; the first may stay sharded."""
    if _explicit.is_explicit(x):
        x = _divided(x, x.ndim - 1, count)
    *leading, features = x.shape
    return regrouped(x, (*leading, count, features // count), (*_explicit.entries(x), ()))


def merge_last(x: jax.Array) -> jax.Array:
    """Merge the last two axes, `[..., count, features]`; the first may be sharded."""
    *leading, count, features = x.shape
    entries = _explicit.entries(x)[:-1]
    x = _explicit.placed(x, (*entries, ()))
    return regrouped(x, (*leading, count * features), entries)


def reshaped(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return `x.reshape(shape)` of one example, gathered along all its axes."""
    return regrouped(_explicit.whole(x), shape, ((),) * len(shape))


def regrouped(x: jax.Array, shape: tuple[int, ...], wanted: _explicit.Entries) -> jax.Array:
    """Return `x.reshape(shape)`, whose groups of elements stay on their devices.

    Without the entries of the output, JAX drops the mesh axis of an axis with one element, such as
    that of a batch of one example.
    """
    if not _explicit.is_explicit(x):
        return x.reshape(shape)
    return lax.reshape(x, shape, out_sharding=_explicit.sharding((x,), wanted))


def gathered(tree: Any) -> Any:
    """Return a tree with whole arrays; itself if no type has a sharding."""
    if not _explicit.is_explicit(*jax.tree.leaves(tree)):
        return tree
    return jax.tree.map(lambda x: _explicit.whole(used(x)), tree)


def _divided(x: jax.Array, axis: int, count: int) -> jax.Array:
    """Gather `x` along an axis unless its devices share `count` groups of elements evenly."""
    found = _explicit.entries(x)
    if count % _explicit.devices(x, found[axis]) == 0:
        return x
    return _explicit.placed(x, (*found[:axis], (), *found[axis + 1 :]))


def rows(table: jax.Array, at: jax.Array) -> jax.Array:
    """Return rows of a table, NaN for integers outside of it."""
    options: dict[str, Any] = {}
    if _explicit.is_explicit(table, at):
        leading = _explicit.entries(at)
        table = used(table, leading)
        out = _explicit.sharding((table, at), (*leading, _explicit.entries(table)[1]))
        options["out_sharding"] = out
    return table.at[at].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False, **options)


def bilinear(x1: jax.Array, x2: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the sums of `x1_i * x2_j * kernel_ijk`, over the last axes."""
    if _explicit.is_explicit(x1, x2, kernel):
        leading = _explicit.entries(x1)[:-1]
        kernel = used(kernel, leading)
        kernel = _explicit.placed(kernel, ((), (), _explicit.entries(kernel)[2]))
        x1, x2 = (_explicit.placed(x, (*leading, ()), x1, x2) for x in (x1, x2))
    return jnp.einsum("...i,...j,ijk->...k", x1, x2, kernel)


def grouped_alike(*xs: jax.Array) -> tuple[jax.Array, ...]:
    """Return queries, keys and values, `[time, heads, features]`, with heads sharded alike.

    They are sharded as the queries are, if the devices share the heads of keys, and else whole.
    """
    queries, keys, _ = xs
    if not _explicit.is_explicit(*xs):
        return xs
    queries = _divided(queries, 1, keys.shape[1])
    wanted = (), _explicit.entries(queries)[1], ()
    return tuple(_explicit.placed(x, wanted, queries) for x in (queries, *xs[1:]))


def for_windows(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """Return the kernel of a convolution of one example, and options of the operation."""
    if not _explicit.is_explicit(x, kernel):
        return kernel, {}
    kernel = used(kernel, _explicit.entries(x)[:-1])
    out = *((),) * x.ndim, _explicit.entries(kernel)[-1]
    return kernel, {"out_sharding": _explicit.sharding((x, kernel), out)}
