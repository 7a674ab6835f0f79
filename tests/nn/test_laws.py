"""Laws of every layer of the catalogue."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE, Entry

import oryxstate as ox
from oryxstate._module._takes import taken_inside
from oryxstate.testing import check_module

KEY = jax.random.key(0)
COUNT = 3  # examples, and steps


@functools.cache
def model_of(name):
    return ox.init(CATALOGUE[name].template)(KEY, *CATALOGUE[name].specs)


def draw(entry: Entry, seed: int, count: int | None = None):
    """Inputs for one example, or for several."""
    lead = () if count is None else (count,)
    keys = jax.random.split(jax.random.key(seed), len(entry.specs))
    return tuple(
        jax.random.randint(key, lead + spec.shape, 0, 2)
        if jnp.issubdtype(spec.dtype, jnp.integer)
        else jax.random.normal(key, lead + spec.shape)
        for key, spec in zip(keys, entry.specs, strict=True)
    )


def keywords(name, training):
    """What a call of this layer takes."""
    taken = taken_inside(model_of(name))
    given = {"training": training, "rng": jax.random.key(7)}
    return {key: value for key, value in given.items() if key in taken}


def step(name, training):
    """One example, or a batch of them where a layer needs one: `(model, *inputs) -> (y, model)`."""

    def run(model, *inputs):
        return ox.call_and_update(model, *inputs, **keywords(name, training))

    if not (CATALOGUE[name].batched and training):
        return run
    return jax.vmap(run, (None, *[0] * len(CATALOGUE[name].specs)), (0, None))


def inputs_of(name, training, seed=1):
    entry = CATALOGUE[name]
    return draw(entry, seed, COUNT if entry.batched and training else None)


def modes(name):
    """Evaluated, and training if that is something else."""
    return (False, True) if "training" in taken_inside(model_of(name)) else (False,)


every_layer = pytest.mark.parametrize("name", CATALOGUE)


@every_layer
def test_spec_is_that_of_the_output(name):
    entry, model = CATALOGUE[name], model_of(name)
    y = ox.call(model, *draw(entry, 1), **keywords(name, False))
    want = ox.make_array_spec(y)
    assert entry.template.spec(*entry.specs) == model.spec(*entry.specs) == want


@every_layer
def test_laws_of_modules(name):
    """Those that users check their own models with."""
    for training in modes(name):
        batched = CATALOGUE[name].batched and training
        inputs, given = inputs_of(name, training), keywords(name, training)
        report = check_module(model_of(name), *inputs, batched=batched, **given)
        assert {"jit_is_eager", "scan_is_loop", "serialization_round_trip"} <= set(report.checked)


def loss(name, training, inputs):
    def run(params, rest):
        y, new = step(name, training)(ox.merge(params, rest), *inputs)
        parts = [jnp.mean(jnp.square(leaf)) for leaf in jax.tree.leaves(y)
                 if jnp.issubdtype(leaf.dtype, jnp.floating)]  # fmt: skip
        return sum(parts, jnp.float32(0)), new

    return run


@every_layer
def test_a_step_down_the_gradient_lowers_the_loss(name):
    params, rest = ox.partition(model_of(name))
    for training in modes(name):
        run = jax.jit(loss(name, training, inputs_of(name, training)))
        (before, _), slope = jax.value_and_grad(run, has_aux=True)(params, rest)
        size = sum(float((g**2).sum()) for g in jax.tree.leaves(slope))
        rate = 1e-3 / max(1.0, size**0.5)
        after, _ = run(jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, slope), rest)
        assert after < before or size < 1e-6


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "MixedPrecision"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_precision(name, dtype):
    """All arrays in another dtype: so is the output, near to that in float32."""
    entry, model = CATALOGUE[name], model_of(name)

    def cast(tree):
        return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, tree)

    inputs, given = draw(entry, 1), keywords(name, False)
    want = ox.call(model, *inputs, **given)
    with jax.enable_x64(dtype == "float64"):
        y = ox.call(cast(model), *cast(inputs), **given)
    near_by = 1e-4 if dtype == "float64" else 0.1
    for mine, other in zip(jax.tree.leaves(y), jax.tree.leaves(want), strict=True):
        assert mine.dtype == (dtype if other.dtype == jnp.float32 else other.dtype)
        np.testing.assert_allclose(
            np.asarray(mine, np.float32),
            np.asarray(other, np.float32),
            atol=near_by,
            rtol=near_by,
        )


@every_layer
def test_a_capture_changes_nothing_and_sees_the_output(name):
    training = modes(name)[-1]
    run, inputs = step(name, training), inputs_of(name, training)
    (y, new), captured = jax.jit(ox.capture(run, "**"))(model_of(name), *inputs)
    want = jax.jit(run)(model_of(name), *inputs)
    for got in (y, new), (captured.outputs[""], new):
        assert jax.tree.structure(got) == jax.tree.structure(want)
        for x, expected in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(raw(x), raw(expected), rtol=1e-5, atol=1e-6)


def raw(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
