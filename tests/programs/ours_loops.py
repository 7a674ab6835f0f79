"""Programs inside loops and batches, with JAX's own functions."""

from __future__ import annotations

import itertools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from programs.grammar import SHIFTS
from programs.ours_calls import on_argument

XS = np.array(SHIFTS, np.float32)
_axes = itertools.count()


def _steps(node):
    return jnp.arange(node.number, dtype=jnp.float32)


def _scan(f, x, node, modules, **options):
    def body(x, i):
        return 0.5 * f(x) + 0.1 * i, x

    return lax.scan(body, x, _steps(node), **options)[0]


def _scan_carry(f, x, node, modules):
    step = on_argument(node.body)

    def body(carry, i):
        modules, x = carry
        return (modules, 0.5 * step(modules, x) + 0.1 * i), None

    return lax.scan(body, (modules, x), _steps(node))[0][1]


def _scan_without_carry(f, x, node, modules):
    _, ys = lax.scan(lambda _, i: (None, f(x + 0.1 * i)), None, _steps(node))
    return x + ys.sum()


def _scan_without_xs(f, x, node, modules):
    return lax.scan(lambda x, _: (0.5 * f(x), None), x, None, length=node.number)[0]


def _fori(f, x, node, modules, traced):
    trips = jnp.int32(node.number) + (0 * x).astype(jnp.int32) if traced else node.number
    return lax.fori_loop(0, trips, lambda i, x: 0.5 * f(x) + 0.1 * i.astype(x.dtype), x)


def _while(f, x, node, modules, uses_state):
    def go_on(carry):
        return (carry[0] < node.number) & ((modules.cells[0].s > -5.0) | (not uses_state))

    return lax.while_loop(go_on, lambda c: (c[0] + 1, 0.5 * f(c[1])), (0, x))[1]


def _while_carry(f, x, node, modules):
    step = on_argument(node.body)

    def body(carry):
        i, modules, x = carry
        return i + 1, modules, 0.5 * step(modules, x)

    return lax.while_loop(lambda c: c[0] < node.number, body, (0, modules, x))[2]


def _while_writes(f, x, node, modules):
    """The predicate writes, which is refused."""

    def go_on(carry):
        modules.cells[0]("count", carry[1])
        return carry[0] < node.number

    return lax.while_loop(go_on, lambda c: (c[0] + 1, f(c[1])), (0, x))[1]


def _map(f, x, node, modules):
    return x + lax.map(f, x + 0.1 * _steps(node)).sum()


def _map_batched(f, x, node, modules):
    xs = x + 0.1 * jnp.arange(node.number + 1, dtype=x.dtype)
    return x + lax.map(f, xs, batch_size=2).sum()


def _associative_scan(f, x, node, modules):
    xs = x + 0.1 * jnp.arange(node.number + 1, dtype=x.dtype)
    return lax.associative_scan(lambda a, b: 0.5 * a + b + f(0.1 * a.sum()), xs).sum()


LOOPS = {
    "scan": _scan,
    "scan reverse": partial(_scan, reverse=True),
    "scan unroll": partial(_scan, unroll=2),
    "scan whole": partial(_scan, unroll=True),
    "scan carry": _scan_carry,
    "scan without carry": _scan_without_carry,
    "scan without xs": _scan_without_xs,
    "fori": partial(_fori, traced=False),
    "fori traced": partial(_fori, traced=True),
    "while": partial(_while, uses_state=False),
    "while state": partial(_while, uses_state=True),
    "while carry": _while_carry,
    "while writes": _while_writes,
    "map": _map,
    "map batched": _map_batched,
    "associative_scan": _associative_scan,
}


def _vmap_out(f, x, node, modules):
    both = jax.vmap(lambda x: jnp.stack([f(x[0]), x[0]]), in_axes=1, out_axes=1)
    return both((x + XS)[None])[0].mean()


def _vmap_argument(f, x, node, modules):
    return jax.vmap(on_argument(node.body), (None, 0))(modules, x + XS).mean()


def _vmap_of_same(f, x, node, modules):
    return jax.vmap(lambda shift: f(x) + 0 * shift)(XS).mean()


def _collective(f, x, node, modules, combine, nested=False):
    axis = f"axis {next(_axes)}"

    def example(x):
        return f(combine(x, axis)) + x

    if not nested:
        return jax.vmap(example, axis_name=axis)(x + XS).mean()
    inner = jax.vmap(lambda x: f(combine(lax.pmean(x, "inner"), axis)) + x, axis_name="inner")
    return jax.vmap(inner, axis_name=axis)((x + XS)[:, None]).mean()


def _shard_map(f, x, node, modules):
    count = 2 ** min(node.number, 2)
    split = PartitionSpec("d")

    @partial(jax.shard_map, mesh=_mesh(count), in_specs=split, out_specs=split)
    def shard(xs):
        return f(lax.pmean(xs.mean(), "d")) + xs

    return shard(x + 0.1 * jnp.arange(count, dtype=x.dtype)).mean()


def _shard_map_whole(f, x, node, modules):
    mesh, whole = _mesh(2 ** min(node.number, 2)), PartitionSpec()
    return jax.shard_map(f, mesh=mesh, in_specs=whole, out_specs=whole)(x)


def _mesh(count):
    return Mesh(np.array(jax.devices()[:count]), ("d",))


BATCHES = {
    "vmap": lambda f, x, node, modules: jax.vmap(f)(x + XS).mean(),
    "vmap out": _vmap_out,
    "vmap argument": _vmap_argument,
    "vmap of same": _vmap_of_same,
    "eqx.filter_vmap": lambda f, x, node, modules: eqx.filter_vmap(f)(x + XS).mean(),
    "pmean": partial(_collective, combine=lax.pmean),
    "psum": partial(_collective, combine=lax.psum),
    "nested": partial(_collective, combine=lax.pmean, nested=True),
    "shard_map": _shard_map,
    "shard_map whole": _shard_map_whole,
}
