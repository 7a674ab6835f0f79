"""The cost of passing modules to a jitted function and back."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from _measure import interleaved, report

import oryxstate as ox

REPEATS = 50


class Pair(ox.Module):
    """Ours: two arrays."""

    kernel: jax.Array = ox.param()
    bias: jax.Array = ox.param()


class EquinoxPair(eqx.Module):
    """Equinox's."""

    kernel: jax.Array
    bias: jax.Array


def _pairs(make, count):
    return [make(jnp.ones(2), jnp.ones(2)) for _ in range(count)]


def _models(modules: int) -> dict:
    flat = tuple(jnp.ones(2) for _ in range(2 * modules))
    return {
        "flat tuple": flat,
        "nested tuples": tuple(zip(flat[::2], flat[1::2], strict=True)),
        "oryxstate": _pairs(Pair, modules),
        "equinox": _pairs(EquinoxPair, modules),
    }


def run(modules: int, rounds: int) -> None:
    """`jax.jit` of the identity over `modules` modules of two arrays each."""
    models = _models(modules)
    identity = {name: jax.jit(lambda m: m) for name in models}
    filtered = eqx.filter_jit(lambda m: m)

    def repeated(function, model):
        def many():
            for _ in range(REPEATS):
                out = function(model)
            return jax.block_until_ready(out)

        return many

    runs = {name: repeated(identity[name], model) for name, model in models.items()}
    runs["equinox, filter_jit"] = repeated(filtered, models["equinox"])
    report(
        f"jit call: {modules} modules in and out, {REPEATS} calls",
        interleaved(runs, rounds),
        "flat tuple",
    )


def run_flatten(modules: int, rounds: int) -> None:
    """`jax.tree.flatten` and back."""

    def repeated(model):
        def many():
            for _ in range(REPEATS):
                leaves, treedef = jax.tree.flatten(model)
                jax.tree.unflatten(treedef, leaves)

        return many

    models = _models(modules)
    del models["flat tuple"]
    runs = {name: repeated(model) for name, model in models.items()}
    report(
        f"flatten + unflatten: {modules} modules, {REPEATS} times",
        interleaved(runs, rounds),
        "nested tuples",
    )
