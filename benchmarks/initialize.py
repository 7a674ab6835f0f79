"""The cost of drawing the first values of layers."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from _measure import interleaved, report

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
draw = jax.nn.initializers.glorot_uniform()


def _by_hand(key, widths):
    """Kernel and bias of each layer, one after another."""
    layers = []
    for before, after in itertools.pairwise(widths):
        key, own = jax.random.split(key)
        layers.append((draw(own, (before, after), jnp.float32), jnp.zeros(after)))
    return layers


def _equinox(key, widths):
    keys = jax.random.split(key, len(widths) - 1)
    sizes = zip(widths[:-1], widths[1:], keys, strict=True)
    return [eqx.nn.Linear(a, b, key=k) for a, b, k in sizes]


def _ours(key, widths):
    chain = nn.Serial.of(*(nn.Dense.of(width) for width in widths[1:]))
    return ox.init(chain)(key, jax.ShapeDtypeStruct(widths[:1], jnp.float32))


CANDIDATES = {"by hand": _by_hand, "oryxstate": _ours, "equinox": _equinox}
WIDTHS = {"equal": lambda n: (16,) * (n + 1), "distinct": lambda n: tuple(range(8, n + 9))}


def run(layers: int, rounds: int) -> None:
    """Equal layers, and layers that all differ, drawn operation by operation."""
    for kind, widths in WIDTHS.items():
        sizes = widths(layers)
        runs = {
            name: lambda make=make, sizes=sizes: jax.block_until_ready(
                jax.tree.leaves(eqx.filter(make(KEY, sizes), eqx.is_array))
            )
            for name, make in CANDIDATES.items()
        }
        title = f"init, eager: {layers} {kind} Dense layers"
        report(title, interleaved(runs, rounds), "by hand")


def run_jitted(layers: int, rounds: int) -> None:
    """The same in one program: trace, lower, compile and run it once."""
    sizes = WIDTHS["equal"](layers)

    def cold(make):
        return lambda: jax.block_until_ready(jax.jit(lambda key: make(key, sizes))(KEY))

    runs = {name: cold(CANDIDATES[name]) for name in ("by hand", "oryxstate")}
    title = f"init, jitted: {layers} equal Dense layers, compiled and run once"
    report(title, interleaved(runs, rounds), "by hand")
