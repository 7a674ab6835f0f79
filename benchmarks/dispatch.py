"""The cost of passing modules to a jitted function and back."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from _measure import interleaved, repeated, report

import oryxstate as ox

REPEATS = {10: 100, 100: 20, 1000: 3}


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


def _next(model):
    """The work of a step: one operation for each array, so that nothing is handed through."""
    return jax.tree.map(lambda x: x + 1, model)


def run(modules: int, rounds: int) -> None:
    """A jitted function that adds 1 to each array of `modules` modules, in and out."""
    models, repeats = _models(modules), REPEATS[modules]
    runs = {
        name: repeated(jax.jit(lambda m: _next(m)), model, times=repeats)
        for name, model in models.items()
    }
    runs["equinox, filter_jit"] = repeated(eqx.filter_jit(_next), models["equinox"], times=repeats)
    step = ox.step(lambda model: (_next(model), None))
    runs["oryxstate, ox.step"] = repeated(step, ox.Flat(models["oryxstate"]), times=repeats)
    title = f"jit call: {modules} modules of two arrays in and out"
    report(title, interleaved(runs, rounds), "flat tuple", repeats=repeats)


def run_all(rounds: int) -> None:
    """Of each size."""
    for modules in REPEATS:
        run(modules, rounds)


def run_flatten(modules: int, rounds: int) -> None:
    """`jax.tree.flatten` and back."""
    models = _models(modules)
    del models["flat tuple"]

    def through(model):
        leaves, treedef = jax.tree.flatten(model)
        jax.tree.unflatten(treedef, leaves)

    runs = {name: repeated(through, model, times=50) for name, model in models.items()}
    times = interleaved(runs, rounds)
    report(f"flatten and unflatten: {modules} modules", times, "nested tuples", repeats=50)
