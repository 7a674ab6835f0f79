"""Transformations that map over an axis or over devices, each with its meaning by hand."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import Mesh, PartitionSpec
from rows import XS, Row

ROWS: dict[str, Row] = {}


def hand_mapped(f):
    """Each example starts from the same state; what they leave is equal, or the map is refused."""

    def run(s, h):
        ends = [f.hand(s, h * x) for x in XS]
        return sum(x * y for x, (y, _) in zip(XS, ends, strict=True)), ends[0][1]

    return run


def vmap(f):
    return lambda m, h: (XS * jax.vmap(f.step, (None, 0))(m, h * XS)).sum()


def vmap_axis_1(f):
    def column(m, v):
        return jnp.stack([f.step(m, v[0]), v[1]])

    def run(m, h):
        out = jax.vmap(column, (None, 1), 1)(m, jnp.stack([h * XS, XS]))
        return (XS * out[0]).sum() + out[1].sum() - XS.sum()

    return run


def filter_vmap(f):
    mapped = eqx.filter_vmap(f.step, in_axes=(None, 0))
    return lambda m, h: (XS * mapped(m, h * XS)).sum()


def vmap_nested(f):
    mapped = jax.vmap(jax.vmap(f.step, (None, 0)), (None, 1))
    return lambda m, h: (XS * mapped(m, (h * XS).reshape(2, 2)).T.reshape(4)).sum()


def pmean(axes):
    def ours(f):
        def mean(m, h):
            return f.step(m, lax.pmean(h, tuple(axes))) * h

        for axis in axes:
            mean = jax.vmap(mean, (None, 0), axis_name=axis)
        shape = (2, 2) if len(axes) == 2 else (4,)
        return lambda m, h: mean(m, (h + XS).reshape(shape)).mean()

    def hand(f):
        def run(s, h):
            y, s = f.hand(s, (h + XS).mean())
            return y * (h + XS).mean(), s

        return run

    return Row(ours, hand)


def vmap_same(f):
    """Nothing of the module depends on the axis."""

    def run(m, h):
        return jax.vmap(lambda x: x * f.step(m, h))(jnp.asarray(XS)).sum()

    return run


def hand_same(f):
    def run(s, h):
        y, s = f.hand(s, h)
        return XS.sum() * y, s

    return run


def ruled(f):
    @custom_vmap
    def run(m, h):
        return f.step(m, h)

    @run.def_vmap
    def _(axis_size, in_batched, m, h):
        return 2 * jax.vmap(f.step, (None, 0))(m, h), True

    return run


def custom_vmap_mapped(f):
    return lambda m, h: (XS * jax.vmap(ruled(f), (None, 0))(m, h * XS)).sum()


def hand_custom_vmap_mapped(f):
    def run(s, h):
        y, s = hand_mapped(f)(s, h)
        return 2 * y, s

    return run


def sharded(count):
    mesh = Mesh(np.array(jax.devices()[:count]), ("d",))
    whole, split = PartitionSpec(), PartitionSpec("d")

    def ours(f):
        @partial(jax.shard_map, mesh=mesh, in_specs=(whole, split), out_specs=split)
        def run(m, v):
            return v * f.step(m, lax.pmean(v.mean(), "d"))

        return lambda m, h: run(m, h + XS).mean()

    return Row(ours, pmean("i").hand)


ROWS["vmap"] = Row(vmap, hand_mapped, maps=True)
ROWS["vmap in_axes and out_axes 1"] = Row(vmap_axis_1, hand_mapped, maps=True)
ROWS["vmap nested"] = Row(vmap_nested, hand_mapped, maps=True)
ROWS["filter_vmap"] = Row(filter_vmap, hand_mapped, maps=True)
ROWS["vmap with pmean"] = pmean("i")
ROWS["vmap nested with pmean"] = pmean("ij")
ROWS["vmap of what does not depend on the axis"] = Row(vmap_same, hand_same)
ROWS["custom_vmap"] = Row(ruled, modes=frozenset(), batches=False)
ROWS["custom_vmap mapped"] = Row(
    custom_vmap_mapped, hand_custom_vmap_mapped, maps=True, modes=frozenset(), batches=False
)
ROWS["shard_map on 1 device"] = sharded(1)
ROWS["shard_map on 2 devices"] = sharded(2)
ROWS["shard_map on 4 devices"] = sharded(4)
