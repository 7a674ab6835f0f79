"""Stacks of layers as `xs` of `scan` and `lax.map`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from programs.oracle_stacks import LAYERS


def call(node, modules, x):
    """A call of each layer of a stack."""
    return STACKS[node.variant](partial(_call, node.kind), x, modules)


def _call(kind, layer, x):
    """Run a layer, or each of a pair of layers."""
    if not isinstance(layer, dict):
        return layer(kind, x)
    first, second = layer["pair"]
    return first(kind, second(kind, x))


def _scan(step, x, modules, container=False, wrap=lambda f: f, times=1, **options):
    def body(h, layer):
        for _ in range(times):
            h = wrap(step)(layer, h)
        return h, None

    return lax.scan(body, x, modules.pairs if container else modules.stack, **options)[0]


def _nested(step, x, modules):
    def body(h, layer):
        return _scan(step, step(layer, h), modules, container=True), None

    return lax.scan(body, x, modules.stack)[0]


def _several(step, x, modules):
    def body(h, layers):
        layer, pair, i = layers
        return 0.5 * step(pair, step(layer, h)) + 0.1 * i, None

    xs = modules.stack, modules.pairs, jnp.arange(LAYERS, dtype=x.dtype)
    return lax.scan(body, x, xs)[0]


def _map(step, x, modules, container=False, **options):
    xs = modules.pairs if container else modules.stack, x + 0.1 * jnp.arange(LAYERS, dtype=x.dtype)
    return lax.map(lambda layer_x: step(*layer_x), xs, **options).mean()


def _index(step, x, modules):
    """A slice that is taken by hand, which no place belongs to: it can be read only."""

    def one(i, total):
        layer = jax.tree.map(lambda leaf: leaf[i], modules.stack)
        return total + step(layer, x + 0.1 * i.astype(x.dtype))

    return lax.fori_loop(0, LAYERS, one, 0.0 * x) * (1 / LAYERS)


STACKS = {
    "scan": _scan,
    "scan reverse": partial(_scan, reverse=True),
    "scan unroll": partial(_scan, unroll=2),
    "scan whole": partial(_scan, unroll=True),
    "scan checkpoint": partial(_scan, wrap=jax.checkpoint),
    "scan jit": partial(_scan, wrap=jax.jit),
    "scan twice": partial(_scan, times=2),
    "scan nested": _nested,
    "scan container": partial(_scan, container=True),
    "scan several": _several,
    "map": _map,
    "map container": partial(_map, container=True),
    "map batched": partial(_map, batch_size=2),
    "index": _index,
}


def _stacked(f, x, node, modules, run_layer, **options):
    def body(h, layer):
        i, layer = layer
        return run_layer(layer, i, 0.5 * f(h)), None

    return lax.scan(body, x, (jnp.arange(LAYERS), modules.stack), **options)[0]


def _accumulate(layer, i, x):
    return layer("accumulate", x)


def _sometimes(layer, i, x):
    return lax.cond(i == 1, lambda x: x, lambda x: layer("accumulate", x), x)


def _slope(layer, i, x):
    y, slope = jax.value_and_grad(lambda x: layer("accumulate", x))(x)
    return 0.5 * y + slope


def _stacked_map(f, x, node, modules):
    xs = modules.stack, 0.1 * jnp.arange(LAYERS, dtype=x.dtype)
    return lax.map(lambda both: both[0]("accumulate", f(x) + both[1]), xs).mean()


STACKED = {
    "stacked": partial(_stacked, run_layer=_accumulate),
    "stacked reverse": partial(_stacked, run_layer=_accumulate, reverse=True),
    "stacked map": _stacked_map,
    "stacked cond": partial(_stacked, run_layer=_sometimes),
    "stacked grad": partial(_stacked, run_layer=_slope),
}
