"""Grouped convolutions on meshes with several axes, where XLA sums their gradients wrongly.

The gradient of the kernel of a grouped convolution is too large there, by the number of devices
along the mesh axes that do not split the batch (XLA up to JAX 0.12, on all kinds of axes). So the
sum over the window is written out, one product for each place in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
from jax import lax
from jax.sharding import AxisType

from oryxstate import _explicit
from oryxstate.nn._placed import einsum, reshaped, split_last, used


def is_summed_wrongly(x: jax.Array) -> bool:
    """Tell whether the program is for a mesh with several axes, as far as JAX says."""
    mesh = _explicit.mesh_of(x) or jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return False
    kinds = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return sum(size > 1 and kind != AxisType.Manual for size, kind in kinds) > 1


def grouped_conv(
    x: jax.Array,
    kernel: jax.Array,
    groups: int,
    pads: Sequence[tuple[int, int]],
    strides: Sequence[int],
    spacing: Sequence[int],
    dilation: Sequence[int],
) -> jax.Array:
    """Return the convolution of one example, channels last.

    Args:
        x: `[*spatial, in]`.
        kernel: `[*window, in / groups, out]`.
        groups: the number of groups of channels.
        pads: before and after each spatial axis.
        strides: from one place of the kernel to the next.
        spacing: from one element of the input to the next, with zeros between them.
        dilation: from one element of the kernel to the next.
    """
    edges = [(low, high, step - 1) for (low, high), step in zip(pads, spacing, strict=True)]
    x = lax.pad(_explicit.whole(x), x.dtype.type(0), [*edges, (0, 0, 0)])
    *window, _, features = kernel.shape
    kernel = used(kernel, _explicit.entries(x)[:-1])
    kernel = _explicit.placed(kernel, (*((),) * len(window), *_explicit.entries(kernel)[-2:]))
    reach = [(n - 1) * step + 1 for n, step in zip(window, dilation, strict=True)]
    ends = [n - r + 1 for n, r in zip(x.shape, reach, strict=False)]  # of the places, at offset 0
    total = None
    for at in itertools.product(*map(range, window)):
        first = [i * step for i, step in zip(at, dilation, strict=True)]
        last = [i + end for i, end in zip(first, ends, strict=True)]
        part = lax.slice(x, [*first, 0], [*last, x.shape[-1]], [*strides, 1])
        weights = split_last(kernel[at], groups)
        term = einsum("...gc,cgo->...go", split_last(part, groups), weights)
        total = term if total is None else total + term
    assert total is not None  # the window is not empty
    return reshaped(total, (*total.shape[:-2], features))
