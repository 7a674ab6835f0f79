"""Differences between two pytrees, found and described in words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from strategies import arrays, values

from oryxstate.testing._differences import difference, type_difference

KEY = jax.random.key(0)
LARGE = jnp.arange(12.0).reshape(3, 4)
ONE = jnp.float32(1)

DIFFERENT = {
    "value": (ONE, jnp.float32(1.001), "1.", "1.00100005"),
    "integer": (jnp.int32(2**24), jnp.int32(2**24 + 1), "16777216", "16777217"),
    "unsigned": (jnp.uint8(0), jnp.uint8(255), "0", "255"),
    "boolean": (jnp.array([True, False]), jnp.array([True, True]), "[ True, False]", "[ True, "),
    "key": (KEY, jax.random.key(1), "[0, 0]", "[0, 1]"),
    "NaN": (ONE, jnp.float32(jnp.nan), "1.", "nan"),
    "infinity": (jnp.float32(jnp.inf), -jnp.float32(jnp.inf), "inf", "-inf"),
    "complex": (jnp.complex64(1j), jnp.complex64(-1j), "0.+1.j", "-0.-1.j"),
    "one of many": (LARGE, LARGE.at[1, 2].set(7.0), "6. at index [1, 2]", "7."),
    "dtype": (ONE, jnp.int32(1), "float32[]", "int32[]"),
    "shape": (jnp.ones(2), jnp.ones((2, 1)), "float32[2]", "float32[2,1]"),
    "missing": ({}, {"a": ONE}, "missing", "there"),
    "there": ([ONE, ONE], [ONE], "there", "missing"),
    "no array": ("a", "b", "'a'", "'b'"),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_differences(kind):
    got, want, *words = DIFFERENT[kind]
    found = difference({"x": got}, {"x": want})
    assert found is not None and jax.tree_util.keystr(found.path).startswith("['x']")
    assert found.got == words[0] and found.want.startswith(words[1])


@given(values)
def test_a_value_is_the_same_as_its_copy(value):
    copied = jax.tree.map(lambda x: x.copy(), value)
    assert difference(copied, value) is None
    assert type_difference(copied, value) is None


@given(arrays.filter(lambda x: x.size and x.dtype in (jnp.float32, jnp.float16, jnp.bfloat16)))
def test_nearly_the_same(x):
    digits = float(jnp.finfo(x.dtype).eps)
    near, far = (x + jnp.asarray(3 * by, x.dtype) for by in (digits, digits**0.5))
    assert difference(near, x) is None
    assert difference(far, x) is not None
    assert difference(far, x, tolerance=1.0) is None


def test_the_scale_is_that_of_the_largest():
    assert difference(jnp.array([1e6, 1.0]), jnp.array([1e6, 2.0])) is None
    assert difference(jnp.array([jnp.nan, 1.0]), jnp.array([jnp.nan, 2.0])) is not None


def test_weak_types():
    found = type_difference(jnp.asarray(1.0), ONE)
    assert found is not None and found.got == "float32[], weakly typed"
    assert difference(jnp.asarray(1.0), ONE) is None
    assert type_difference([np.float32(1)], [ONE]) is None
