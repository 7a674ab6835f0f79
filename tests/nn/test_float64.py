"""Models in float64, which compute in float64 throughout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attentions import FEATURES, KINDS, TIME, by_hand, kinds
from catalogue import CATALOGUE

import oryxstate as ox
from oryxstate import nn
from oryxstate._module._takes import taken_inside

KEY = jax.random.key(0)


def double(tree):
    """Specs of the same arrays, floats in float64."""

    def spec(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, jnp.float64 if floating else x.dtype)

    return jax.tree.map(spec, tree)


def dtypes_in(jaxpr):
    """The dtypes of the results of all equations, also of those inside."""
    for equation in jaxpr.eqns:
        yield from ((equation.primitive.name, v.aval.dtype) for v in equation.outvars)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                yield from dtypes_in(getattr(value, "jaxpr", value))


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "MixedPrecision"])
def test_no_result_of_a_layer_is_narrower(name, training):
    template, specs, batched = CATALOGUE[name]
    model = jax.eval_shape(lambda key: ox.init(template)(key, *specs), KEY)
    taken = taken_inside(model)
    given = {"training": training} if "training" in taken else {}
    rng = KEY if "rng" in taken else None

    def step(model, *inputs):
        more = given if rng is None else {**given, "rng": rng}
        return ox.call_and_update(model, *inputs, **more)

    inputs = [jax.ShapeDtypeStruct(s.shape, s.dtype) for s in specs]
    if batched and training:
        step = jax.vmap(step, (None, *[0] * len(specs)), (0, None))
        inputs = [jax.ShapeDtypeStruct((3, *s.shape), s.dtype) for s in inputs]
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(step)(double(model), *double(inputs))
    found = list(dtypes_in(jaxpr.jaxpr))
    narrow = [
        (primitive, dtype.name)
        for primitive, dtype in found
        if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 64
    ]
    assert narrow == []


def drawn(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


@kinds
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_its_formula_with_its_derivative(kind, causal):
    mask = np.tril(np.ones((TIME, TIME), bool)) | (np.arange(TIME) == 2)[None]
    with jax.enable_x64(True):
        x, along = jnp.asarray(drawn(TIME, FEATURES)), jnp.asarray(drawn(TIME, FEATURES, seed=2))
        template = nn.MultiHeadAttention.of(
            4, causal=causal, param_dtype=jnp.float64, **KINDS[kind]
        )
        layer = template.init(KEY, x)
        run = jax.jit(lambda x: layer(x, mask=jnp.asarray(mask)))
        y, slope = jax.jvp(run, (x,), (along,))
        np.testing.assert_allclose(y, by_hand(layer, x, mask=mask), rtol=1e-12, atol=1e-12)
        step = 1e-5
        differences = (run(x + step * along) - run(x - step * along)) / (2 * step)
        np.testing.assert_allclose(slope, differences, rtol=1e-7, atol=1e-7)
        if causal:
            cached = layer.cached(TIME)
            assert cached.keys.dtype == cached.values.dtype == jnp.float64
            np.testing.assert_allclose(cached(x), layer(x), rtol=1e-12, atol=1e-12)


def test_a_cache_holds_what_wider_inputs_compute():
    template = nn.MultiHeadAttention.of(2, causal=True, param_dtype=jnp.float32)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x = jnp.asarray(drawn(TIME, FEATURES))
        layer = template.init(KEY, x)
        from_template = nn.CachedAttention.of(template, TIME).init(KEY, x)
        for cached in (layer.cached(TIME, jnp.float64), from_template):
            assert cached.keys.dtype == cached.values.dtype == jnp.float64
        np.testing.assert_allclose(layer.cached(TIME, jnp.float64)(x), layer(x), rtol=1e-12)
        assert layer.cached(TIME).keys.dtype == jnp.float32
        block = nn.TransformerBlock.of(template, nn.MLP.of((FEATURES,))).init(KEY, x)
        assert block.cached(TIME, jnp.float64).attention.keys.dtype == jnp.float64
        assert block.cached(TIME).attention.keys.dtype == jnp.float32


@pytest.mark.parametrize("pool", [nn.AvgPool(2), nn.AdaptiveAvgPool(1), nn.GlobalAvgPool()])
def test_means_of_64_bit_integers(pool):
    with jax.enable_x64(True):
        x = jnp.array([[2**40 + 1], [2**40]], jnp.int64)
        y = pool(x)
        assert y.dtype == jnp.float64 and y.item() == 2**40 + 0.5
        assert pool(x.astype(jnp.int32)).dtype == jnp.float32


def test_singular_vectors_of_another_dtype_than_the_kernel():
    model = nn.SpectralNorm.of(nn.Dense.of(2)).init(KEY, jnp.ones(3))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), model.params)
        y, new = model.replace(params=params).call_and_update(jnp.ones(3), training=True)
        assert y.dtype == jnp.float64 and new.u.dtype == jnp.float32
