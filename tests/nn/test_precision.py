"""Formulas of layers, each traced once, and their common dtypes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox
from oryxstate import nn
from oryxstate.nn._precision import common_dtype, inlined


def test_a_formula_is_traced_once_and_leaves_no_call():
    traced = []

    @inlined
    def formula(x, y, *, power):
        traced.append(power)
        return x**power if y is None else x**power + y

    def program(x):
        squares = formula(formula(x, None, power=2), x, power=2)
        return formula(x, None, power=3) + formula(squares, None, power=2)

    x = jnp.array(2.0)
    assert float(program(x)) == 8 + (16 + 2) ** 2
    lowered = jax.jit(jax.grad(program)).lower(x)
    assert traced == [2, 2, 3], "for each shape of the inputs, and each power"
    assert "call @" not in lowered.as_text()


@pytest.mark.parametrize("layer", [nn.Dense.of(3), nn.BatchNorm.of()])
def test_equal_layers_share_what_jax_knows_and_nothing_else(layer):
    """Two layers through one traced formula are still two layers."""
    xs = jax.random.normal(jax.random.key(1), (4, 3))
    model = ox.init(layer >> jnp.tanh >> layer)(jax.random.key(0), xs[0])

    def train(model, x):
        more = {"training": True} if layer.layer is nn.BatchNorm else {}
        return model.call_and_update(x, **more)

    run = jax.vmap(train, (None, 0), (0, None))
    ys, new = jax.jit(run)(model, xs)
    with jax.disable_jit():
        want, expected = run(model, xs)
    for ours, theirs in zip(
        jax.tree.leaves((ys, new)), jax.tree.leaves((want, expected)), strict=True
    ):
        assert jnp.allclose(ours, theirs, atol=1e-6)
    leaves = [jax.tree.leaves(part) for part in (new.layers[0], new.layers[2])]
    assert not all(jnp.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def test_the_common_dtype():
    half, single = jnp.ones(1, "bfloat16"), jnp.ones(1, "float32")
    assert common_dtype(None, half, None) == jnp.bfloat16
    assert common_dtype("float16", half, single) == "float16"
