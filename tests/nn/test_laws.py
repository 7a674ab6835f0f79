"""Which laws hold for every layer of the catalogue?"""

from __future__ import annotations

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE, Entry
from jax import lax

import oryxstate as ox
from oryxstate._module._keywords import taken_inside

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


def near(got, want, atol=2e-5):
    for mine, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        if jnp.issubdtype(mine.dtype, jax.dtypes.prng_key):
            mine, other = map(jax.random.key_data, (mine, other))
        np.testing.assert_allclose(mine, other, atol=atol, rtol=1e-4)


def types(tree):
    return [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]


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


both_modes = pytest.mark.parametrize("training", [False, True], ids=["evaluated", "training"])
every_layer = pytest.mark.parametrize("name", CATALOGUE)


@every_layer
def test_spec_is_that_of_the_output(name):
    entry, model = CATALOGUE[name], model_of(name)
    y = ox.call(model, *draw(entry, 1), **keywords(name, False))
    want = ox.make_array_spec(y)
    assert entry.template.spec(*entry.specs) == model.spec(*entry.specs) == want


@every_layer
@both_modes
def test_functions_of_state(name, training):
    """S3: `call` and `update` are parts of `call_and_update`, types stay, jitted or not."""
    model, inputs, run = model_of(name), inputs_of(name, training), step(name, training)
    before = jax.tree.map(jnp.copy, model)
    y, new = run(model, *inputs)
    near(model, before)
    assert jax.tree.structure(new) == jax.tree.structure(model)
    assert types(new) == types(model)
    near(jax.jit(run)(model, *inputs), (y, new))
    near(jax.jit(jax.checkpoint(run))(model, *inputs), (y, new))
    if not (CATALOGUE[name].batched and training):
        given = keywords(name, training)
        near(ox.call(model, *inputs, **given), y)
        near(ox.update(model, *inputs, **given), new)


@every_layer
@both_modes
def test_scan_is_a_loop(name, training):
    """The model as carry, updated in each step."""
    run = step(name, training)
    steps = [inputs_of(name, training, seed) for seed in range(COUNT)]
    model, ys = model_of(name), []
    for inputs in steps:
        y, model = run(model, *inputs)
        ys.append(y)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *steps)
    end, outs = lax.scan(lambda m, xs: run(m, *xs)[::-1], model_of(name), stacked)
    near((outs, end), (jax.tree.map(lambda *y: jnp.stack(y), *ys), model), atol=5e-5)


@every_layer
def test_vmap_is_a_loop(name):
    """Of a model that is not updated."""
    entry, model, given = CATALOGUE[name], model_of(name), keywords(name, False)
    batch = draw(entry, 1, COUNT)
    ys = jax.vmap(lambda *xs: ox.call(model, *xs, **given))(*batch)
    each = [ox.call(model, *(x[i] for x in batch), **given) for i in range(COUNT)]
    near(ys, jax.tree.map(lambda *y: jnp.stack(y), *each))


def loss(name, training, inputs):
    def run(params, rest):
        y, new = step(name, training)(ox.merge(params, rest), *inputs)
        parts = [jnp.mean(jnp.square(leaf)) for leaf in jax.tree.leaves(y)
                 if jnp.issubdtype(leaf.dtype, jnp.floating)]  # fmt: skip
        return sum(parts, jnp.float32(0)), new

    return run


@every_layer
@both_modes
def test_gradients(name, training):
    """Finite, the same jitted, and equal to a finite difference in a random direction."""
    params, rest = ox.partition(model_of(name))
    run = loss(name, training, inputs_of(name, training))
    slope = jax.grad(run, has_aux=True)(params, rest)[0]
    near(jax.jit(jax.grad(run, has_aux=True))(params, rest)[0], slope, atol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves)) if leaves else []
    way = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]

    def along(t):
        moved = [leaf + t * w for leaf, w in zip(leaves, way, strict=True)]
        return float(run(jax.tree.unflatten(structure, moved), rest)[0])

    pairs = zip(jax.tree.leaves(slope), way, strict=True)
    want = sum(float((g * w).sum()) for g, w in pairs)
    assert abs((along(2e-3) - along(-2e-3)) / 4e-3 - want) <= 0.02 + 0.05 * abs(want)


@every_layer
@both_modes
def test_a_step_down_the_gradient_lowers_the_loss(name, training):
    params, rest = ox.partition(model_of(name))
    run = jax.jit(loss(name, training, inputs_of(name, training)))
    (before, _), slope = jax.value_and_grad(run, has_aux=True)(params, rest)
    size = sum(float((g**2).sum()) for g in jax.tree.leaves(slope))
    rate = 1e-3 / max(1.0, size**0.5)
    after, _ = run(jax.tree.map(lambda p, g: p - rate * g, params, slope), rest)
    assert after < before or size < 1e-6


@every_layer
def test_no_two_fields_share_an_array(name):
    """Or the model could not be donated."""
    leaves = jax.tree.leaves(model_of(name))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.dtype == jnp.float32]
    assert len(set(pointers)) == len(pointers)


@every_layer
def test_pickle(name):
    model = model_of(name)
    twin = pickle.loads(pickle.dumps(model))
    near(twin, model)
    assert jax.tree.structure(twin) == jax.tree.structure(model)


@every_layer
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
