"""Attention, compared with its formula."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attentions import (
    FEATURES,
    KINDS,
    TIME,
    assert_close,
    by_hand,
    kinds,
    made,
    raises,
    sequence,
)

import oryxstate as ox
from oryxstate import nn


@kinds
@pytest.mark.parametrize("causal", [False, True])
def test_outputs_are_those_of_the_formula(kind, causal):
    x, layer = sequence(), made(causal=causal, **KINDS[kind])
    assert_close(layer(x), by_hand(layer, x))


def masks():
    mask = jax.random.bernoulli(jax.random.key(5), 0.5, (4, TIME, TIME))
    mask = mask | jnp.eye(TIME, dtype=bool)[None]
    return {"for all heads": mask[0], "for each head": mask}


@kinds
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("which", masks())
def test_masks(kind, causal, which):
    x, layer, mask = sequence(), made(causal=causal, **KINDS[kind]), masks()[which]
    assert_close(jax.jit(ox.call)(layer, x, mask=mask), by_hand(layer, x, mask=mask))


@kinds
@pytest.mark.parametrize("causal", [False, True])
def test_a_step_that_sees_nothing_has_the_bias_as_output(kind, causal):
    """It depends on no step, neither on padding before a causal sequence nor on the future."""
    x, layer = sequence(), made(causal=causal, **KINDS[kind])
    mask = jnp.ones((TIME, TIME), bool).at[:, :2].set(False)
    mask = mask if causal else mask.at[:2].set(False)
    y, pull = jax.vjp(lambda x: layer(x, mask=mask)[:2], x)
    assert_close(y, jnp.stack([layer.out.bias] * 2))
    assert not pull(jnp.ones_like(y))[0].any()
    assert_close(
        layer(x, mask=mask)[2:], by_hand(layer, x, mask=mask | (jnp.arange(6) < 2)[:, None])[2:]
    )


def test_another_context():
    x, context = sequence(), sequence(2, (3, 5))
    layer = made(x, context, kv_heads=2)
    assert_close(layer(x, context), by_hand(layer, x, context))
    mask = jnp.array([True, False, True])[None].repeat(TIME, axis=0)
    assert_close(layer(x, context, mask), by_hand(layer, x, context, mask))
    assert layer.spec(x, context) == ox.ArraySpec((TIME, FEATURES))
    assert_close(made()(x, x), made()(x))


def test_causal_steps_do_not_see_what_comes():
    layer, x = made(causal=True), sequence()
    jacobian = jax.jacobian(layer)(x)
    for t in range(TIME):
        assert not jacobian[t, :, t + 1 :].any()
        assert jnp.abs(jacobian[t, :, : t + 1]).max() > 0


def test_rotary_outputs_depend_on_differences_of_positions_alone():
    layer = made(causal=True, rotary_base=100.0)
    x = sequence(shape=(3, FEATURES))
    shifted = layer(jnp.concatenate([jnp.zeros((2, FEATURES)), x]), mask=window(5, 2))[2:]
    assert_close(shifted, layer(x))
    assert float(jnp.abs(layer(x) - layer.replace(rotary_base=None)(x)).max()) > 1e-3


def window(length, start):
    """Everything looks only at what stands from `start` on, but for what stands before."""
    seen = np.tile(np.arange(length) >= start, (length, 1))
    return jnp.array(seen | np.eye(length, dtype=bool))


@pytest.mark.parametrize("mask", [None, *masks().values()])
def test_outputs_and_gradients_are_those_of_equinox(mask):
    x, context = sequence(), sequence(2, (TIME, 5))
    layer = made(x, context)
    names = ["query", "key", "value", "out"]
    use = {f"use_{n}_bias": True for n in ("query", "key", "value", "output")}
    theirs = eqx.nn.MultiheadAttention(4, 8, 5, 5, 8, 8, 8, **use, key=jax.random.key(9))

    def where(m):
        projections = m.query_proj, m.key_proj, m.value_proj, m.output_proj
        return [leaf for p in projections for leaf in (p.weight, p.bias)]

    denses = [getattr(layer, name) for name in names]
    values = [leaf for d in denses for leaf in (d.kernel.T, d.bias)]
    theirs = eqx.tree_at(where, theirs, values)

    def ours(layer, x, context):
        return jnp.sum(jnp.sin(layer(x, context, mask)))

    def expected(theirs, x, context):
        return jnp.sum(jnp.sin(theirs(x, context, context, mask)))

    y, grads = jax.value_and_grad(ours, (0, 1, 2))(layer, x, context)
    z, their_grads = eqx.filter_value_and_grad(lambda a: expected(*a))((theirs, x, context))
    assert_close((y, *grads[1:]), (z, *their_grads[1:]))
    found = where(their_grads[0])
    for name, weight, bias in zip(names, found[::2], found[1::2], strict=True):
        dense = getattr(grads[0], name)
        assert_close((dense.kernel, dense.bias), (weight.T, bias))
        assert name == "key" or float(jnp.abs(bias).max()) > 1e-3


def test_dtypes():
    x = sequence()
    exact, mixed = made(causal=True), made(causal=True, dtype=jnp.bfloat16)
    assert mixed(x).dtype == jnp.bfloat16 and mixed.query.kernel.dtype == jnp.float32
    np.testing.assert_allclose(mixed(x).astype(jnp.float32), exact(x), atol=0.3)
    cached = mixed.cached(TIME)
    assert cached.keys.dtype == jnp.bfloat16
    y, new = cached.call_and_update(x)
    assert y.dtype == jnp.bfloat16 and new.keys.dtype == jnp.bfloat16
    narrow = made(causal=True, param_dtype=jnp.bfloat16)
    y = narrow.cached(TIME)(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16 == narrow(x.astype(jnp.bfloat16)).dtype


def test_wrong_configurations():
    of = nn.MultiHeadAttention.of
    with raises(ValueError, "MultiHeadAttention: `heads` must be a positive integer, got 0"):
        of(0)
    with raises(ValueError, "MultiHeadAttention: `kv_heads` must be a positive integer, got 0"):
        of(4, kv_heads=0)
    with raises(ValueError, "`kv_heads` must divide the number of heads, 4, got 3"):
        of(4, kv_heads=3)
    with raises(ValueError, "`head_features` must be a positive integer, got -1"):
        of(4, head_features=-1)
    with raises(ValueError, "`head_features` must be even, got 3"):
        of(4, head_features=3, rotary_base=10.0)
    with raises(ValueError, "only causal attention can be decoded step by step"):
        made().cached(4)
    with raises(ValueError, "CachedAttention: `max_length` must be a positive integer, got 0"):
        made(causal=True).cached(0)
    with raises(ValueError, "CachedAttention: `max_length` must be a positive integer, got 0"):
        nn.CachedAttention.of(of(2, causal=True), 0)
    with raises(TypeError, r"made of a template of attention, but got Dense.of\(3\)"):
        nn.CachedAttention.of(nn.Dense.of(3), 4)
    with raises(ValueError, "only causal attention can be decoded step by step"):
        nn.CachedAttention.of(of(2), 4).init(jax.random.key(0), sequence())


def test_inputs_that_no_layer_is_made_for():
    of, key, x = nn.MultiHeadAttention.of, jax.random.key(0), sequence()
    with raises(ValueError, r"takes \[time, features\], and perhaps a context, but got float32\[8"):
        of(2).init(key, x[0])
    with raises(ValueError, r"\[time, features\] whose features 3 heads share"):
        of(3).init(key, x)
    with raises(ValueError, r"each of 8 heads gets an even number"):
        of(8, rotary_base=10.0).init(key, x)
    with raises(ValueError, r"no context, since causal attention and rotary positions are of one"):
        of(2, causal=True).init(key, x, x)


def test_wrong_inputs():
    x, layer = sequence(), made()
    with raises(ValueError, r"MultiHeadAttention takes \[time, 8\], but got float32\[6,7\]"):
        layer(x[:, :7])
    with raises(ValueError, r"takes a context \[time, 8\], but got float32\[6,7\]"):
        layer(x, x[:, :7])
    with raises(ValueError, r"takes a context \[time, 8\], but got bool\[6,8\]"):
        layer(x, jnp.ones((6, 8), bool))  # a mask where the context stands
    text = r"takes a mask bool\[6,6\] or bool\[4,6,6\], but got "
    with raises(ValueError, text + r"bool\[6\]"):
        layer(x, mask=jnp.ones(6, bool))
    with raises(ValueError, text + r"float32\[6,6\]"):
        layer(x, mask=jnp.ones((6, 6)))
    with raises(ValueError, r"takes no context, since causal .* but got \(float32\[6,8\], float32"):
        made(causal=True)(x, x)
    with raises(ValueError, r"CachedAttention takes \[time, 8\], but got float32\[8\]"):
        made(causal=True).cached(4)(x[0])
