"""What do the tests of attention share: layers of each kind, and sequences."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from oryxstate import nn

TIME, FEATURES = 6, 8


KINDS = {
    "plain": {},
    "rotary": {"rotary_base": 100.0},
    "grouped": {"kv_heads": 2},
    "grouped rotary": {"kv_heads": 1, "rotary_base": 10000.0, "head_features": 6},
}


kinds = pytest.mark.parametrize("kind", KINDS)


normal = jax.nn.initializers.normal(1.0)


def sequence(seed=1, shape=(TIME, FEATURES)):
    return jax.random.normal(jax.random.key(seed), shape)


def made(*inputs, heads=4, **options):
    template = nn.MultiHeadAttention.of(heads, bias_init=normal, **options)
    return template.init(jax.random.key(0), *(inputs or (sequence(),)))


def assert_close(ours, expected, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), ours, expected)


def raises(kind, text):
    return pytest.raises(kind, match=text)


def turned(x, base):
    """Rotary positions: each pair of features as a complex number, turned by its position."""
    half = x.shape[-1] // 2
    pairs = x[..., :half] + 1j * x[..., half:]
    speeds = base ** (-np.arange(half) / half)
    angles = np.arange(len(x))[:, None] * speeds
    pairs = pairs * np.exp(1j * angles)[:, None]
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def dense(layer, x):
    y = x @ np.asarray(layer.kernel, np.float64)
    return y if layer.bias is None else y + np.asarray(layer.bias, np.float64)


def by_hand(layer, x, context=None, mask=None):
    """The formula in float64, head by head."""
    x = np.asarray(x, np.float64)
    context = x if context is None else np.asarray(context, np.float64)
    q = dense(layer.query, x).reshape(len(x), layer.heads, -1)
    k = dense(layer.key, context).reshape(len(context), layer.kv_heads, -1)
    v = dense(layer.value, context).reshape(len(context), layer.kv_heads, -1)
    if layer.rotary_base is not None:
        q, k = turned(q, layer.rotary_base), turned(k, layer.rotary_base)
    seen = np.ones((layer.heads, len(x), len(context)), bool)
    seen = seen if mask is None else seen & np.asarray(mask)
    seen = np.tril(seen) if layer.causal else seen
    heads = []
    for h in range(layer.heads):
        shared = h * layer.kv_heads // layer.heads
        scores = q[:, h] @ k[:, shared].T / np.sqrt(q.shape[-1])
        weights = np.where(seen[h], np.exp(scores), 0.0)
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, shared])
    return dense(layer.out, np.concatenate(heads, axis=-1))
