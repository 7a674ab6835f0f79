"""The difference of two models: values with norms, shapes, dtypes, statics, classes, structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from strategies import modules

import oryxstate as ox
from oryxstate import nn


def make(features=2, **options):
    chain = nn.Dense.of(features, **options) >> nn.BatchNorm.of() >> nn.Dense.of(2)
    return ox.init(chain)(jax.random.key(0), jnp.ones(3))


@given(modules)
def test_a_model_does_not_differ_from_itself(model):
    assert not ox.diff(model, model) and repr(ox.diff(model, model)) == "no difference"
    assert not ox.diff(jax.eval_shape(lambda: model), model)


def test_values_differ_by_norms():
    model = make()
    changed = model.at["layers[0].kernel"].apply(lambda x: x + 2).at["layers[1].mean"].set(3.0)
    kernel, mean = ox.diff(model, changed)
    assert (kernel.path, kernel.what, kernel.a) == (
        "layers[0].kernel",
        "value",
        ox.ArraySpec((3, 2)),
    )
    np.testing.assert_allclose(kernel.norm, 2 * 6**0.5, rtol=1e-6)
    length = np.linalg.norm(np.ravel(model.layers[0].kernel).astype(float))
    np.testing.assert_allclose(kernel.relative, kernel.norm / length)
    assert mean.path == "layers[1].mean" and mean.relative == np.inf
    assert repr(ox.diff(model, changed)).splitlines() == [
        f"layers[0].kernel: float32[3,2], |a - b| = 4.9 ({kernel.relative:.2g} of |a|)",
        "layers[1].mean: float32[2], |a - b| = 4.24 (inf of |a|)",
    ]


def test_every_other_difference_has_its_name():
    found = ox.diff(make(), make(4, use_bias=False).at["layers[2].bias"].cast(jnp.bfloat16))
    assert repr(found).splitlines() == [
        "layers[0].kernel: shape, float32[3,2] and float32[3,4]",
        "layers[0].bias: only in a, float32[2]",
        "layers[1].scale: shape, float32[2] and float32[4]",
        "layers[1].bias: shape, float32[2] and float32[4]",
        "layers[1].mean: shape, float32[2] and float32[4]",
        "layers[1].variance: shape, float32[2] and float32[4]",
        "layers[2].kernel: shape, float32[2,2] and float32[4,2]",
        "layers[2].bias: dtype, float32[2] and bfloat16[2]",
    ]
    statics = ox.diff(make(), make().at[ox.select.static & "**.momentum"].set(0.5))
    assert repr(statics) == "layers[1].momentum: static, 0.99 and 0.5"
    shorter = ox.diff([make()], [make(), make()])
    assert {difference.what for difference in shorter} == {"only in b"}
    assert str(shorter[0]) == "[1].layers[0].kernel: only in b, float32[3,2]"
    lambdas = [nn.Lambda(f) for f in (jax.nn.relu, jax.nn.gelu)]
    assert repr(ox.diff(*lambdas)) == "function: static, <function relu> and <function gelu>"
    classes = ox.diff({"a": nn.Lambda(jnp.sin)}, {"a": [jnp.ones(1)]})
    assert str(classes[0]) == "['a']: class, Lambda and list"
    assert str(ox.diff([], ())[0]) == "(model): class, list and tuple"


def test_keys_nan_integers_and_abstract_arrays():
    nan = {"x": jnp.array([jnp.nan, 1.0])}
    assert not ox.diff(nan, nan)
    (difference,) = ox.diff(nan, {"x": jnp.array([1.0, 1.0])})
    assert np.isnan(difference.norm)
    keys = [{"key": jax.random.key(seed)} for seed in (0, 1)]
    assert not ox.diff(keys[0], keys[0])
    (difference,) = ox.diff(*keys)
    assert difference.norm is None and str(difference).endswith(", other values")
    (difference,) = ox.diff(jnp.array([1, 2]), jnp.array([4, 6]))
    assert difference.norm == 5 and str(difference).startswith("(model): int32[2], |a - b| = 5 ")
    (difference,) = ox.diff(jnp.array([1j]), jnp.array([0j]))
    assert difference.norm == 1
    assert str(ox.diff([], jnp.ones(1))[-1]) == "(model): only in b, float32[1]"
    assert not ox.diff(jax.eval_shape(make), make())
    assert ox.diff(jax.eval_shape(make), make(4))[0].what == "shape"


@pytest.mark.parametrize(
    ("a", "b", "norm"),
    [
        (np.array([2**53, 7]), np.array([2**53 + 1, 7]), 1),  # equal in float64
        (np.array([-(2**63)]), np.array([2**63 - 1]), 2.0**64),
        (np.array([255, 0], np.uint8), np.array([0, 0], np.uint8), 255),
        (np.array([True, False]), np.array([False, False]), 1),
        (np.array([-np.inf, np.nan, 1.0]), np.array([-np.inf, np.nan, 3.0]), 2),
        (np.array([np.inf]), np.array([-np.inf]), np.inf),
        (jnp.array([1, 2], jnp.int4), jnp.array([1, -2], jnp.int4), 4),
        (jnp.array([jnp.inf, 1], jnp.bfloat16), jnp.array([jnp.inf, 2], jnp.bfloat16), 1),
    ],
)
def test_norms_are_exact_and_leave_out_equal_infinities(a, b, norm):
    (difference,) = ox.diff({"x": a}, {"x": b})
    assert difference.what == "value" and difference.norm == norm
    assert not ox.diff({"x": a}, {"x": a})
