"""Parity of attention with Flax, with the same parameters."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oryxstate import nn

HEADS, TIME, FEATURES = 4, 6, 8
CAUSAL = jnp.tril(jnp.ones((TIME, TIME), bool))


def sequence(seed=1, shape=(TIME, FEATURES)):
    return jax.random.normal(jax.random.key(seed), shape)


def as_flax(params):
    """Parameters, or gradients of them, as Flax keeps them: with an axis of heads."""

    def heads(dense):
        kernel = dense.kernel.reshape(len(dense.kernel), HEADS, -1)
        return {"kernel": kernel, "bias": dense.bias.reshape(HEADS, -1)}

    out = params["out"]
    made = {name: heads(params[name]) for name in ("query", "key", "value")}
    kernel = out.kernel.reshape(HEADS, -1, out.kernel.shape[1])
    return {**made, "out": {"kernel": kernel, "bias": out.bias}}


def made(*inputs, **options):
    template = nn.MultiHeadAttention.of(HEADS, bias_init=jax.nn.initializers.normal(1.0), **options)
    return template.init(jax.random.key(0), *inputs)


def assert_close(ours, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def compare(layer, inputs, mask, their_mask):
    """Outputs and gradients, by parameters and by inputs."""
    size = layer.query.kernel.shape[1]
    flax = linen.MultiHeadDotProductAttention(HEADS, qkv_features=size, out_features=FEATURES)

    def ours(params, inputs):
        ys = layer.replace(params=params)(*inputs, mask=mask)
        return jnp.sum(jnp.sin(ys)), ys

    def theirs(params, inputs):
        batched = (
            None
            if their_mask is None
            else jnp.broadcast_to(their_mask, (1, HEADS, *their_mask.shape[-2:]))
        )
        ys = flax.apply({"params": params}, *(x[None] for x in inputs), mask=batched)[0]
        return jnp.sum(jnp.sin(ys)), ys

    grads, ys = jax.grad(ours, (0, 1), has_aux=True)(layer.params, inputs)
    expected, their_ys = jax.grad(theirs, (0, 1), has_aux=True)(as_flax(layer.params), inputs)
    assert_close(ys, their_ys)
    assert_close((as_flax(grads[0]), grads[1]), expected)
    assert float(jnp.abs(grads[0]["query"].kernel).max()) > 1e-3


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_self_attention(causal, masked):
    mask = jax.random.bernoulli(jax.random.key(5), 0.5, (HEADS, TIME, TIME))
    mask = (mask | jnp.eye(TIME, dtype=bool)[None]) if masked else None
    both = [m for m in (mask, CAUSAL[None] if causal else None) if m is not None]
    their_mask = None if not both else both[0] if len(both) == 1 else both[0] & both[1]
    x = sequence()
    compare(made(x, causal=causal), (x,), mask, their_mask)


def test_cross_attention():
    x, context = sequence(), sequence(2, (3, 5))
    mask = jnp.ones((TIME, 3), bool).at[1, 2].set(False)
    compare(made(x, context), (x, context), mask, mask)


def test_heads_of_another_size():
    x = sequence()
    compare(made(x, head_features=3), (x,), None, None)
