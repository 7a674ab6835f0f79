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
