"""Dtypes of drawn arrays, and the numbers in them."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from jaxtyping import (
    Array,
    BFloat16,
    Bool,
    Complex,
    Complex64,
    Float,
    Float16,
    Float32,
    Float64,
    Inexact,
    Int,
    Int4,
    Integer,
    Num,
    Real,
    Shaped,
    UInt,
    UInt8,
)

from oryxstate.testing import arrays

# Dtypes and numbers ---------------------------------------------------------------------------


def dtypes_of(hint, tries=25):
    found = set()

    @settings(max_examples=tries, database=None)
    @given(arrays(hint))
    def look(x):
        found.add(x.dtype.name)

    look()
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Float, "float32"),
        (Int, "int32"),
        (Integer, "int32"),
        (Bool, "bool"),
        (UInt, "uint8 uint32"),
        (Num, "float32 int32"),
        (Real, "float32 int32"),
        (Inexact, "float32"),
        (Complex, "complex64"),
        (Shaped, "float32 int32"),
        (UInt8, "uint8"),
        (Float32, "float32"),
        (Complex64, "complex64"),
        (BFloat16, "bfloat16"),
        (Int4, "int4"),
    ],
)
def test_dtypes(kind, expected):
    assert dtypes_of(kind[Array, "2"]) == set(expected.split())


def test_wide_dtypes_if_they_are_enabled():
    with jax.enable_x64(True):
        assert dtypes_of(Float[Array, ""]) == {"float32", "float64"}
        assert dtypes_of(Int[Array, ""]) == {"int32", "int64"}
        assert dtypes_of(Float64[Array, ""]) == {"float64"}
    with pytest.raises(TypeError, match=r"no array can be drawn for Float64.*'jax_enable_x64'"):
        find(arrays(Float64[Array, ""]), lambda x: True)


def test_dtypes_of_the_users_own():
    class Half(jaxtyping.AbstractDtype):
        dtypes = [re.compile("b?float16")]  # noqa: RUF012

    class Unknown(jaxtyping.AbstractDtype):
        dtypes = ["float3"]  # noqa: RUF012

    assert dtypes_of(Half[Array, ""]) == {"bfloat16", "float16"}
    with pytest.raises(TypeError, match=r"JAX has no dtype float3 here\.(?! Enable)"):
        find(arrays(Unknown[Array, ""]), lambda x: True)


@given(st.data(), st.sampled_from([Float, Float16, BFloat16, Int, UInt, Int4, Complex]))
def test_numbers_lie_between_the_bounds(data, kind):
    array = data.draw(arrays(kind[Array, "3"], minimum=-0.3, maximum=2.7))
    for part in (array.real, array.imag) if kind is Complex else (array.astype("float32"),):
        wide = 2.8 if kind is BFloat16 else 2.71
        assert ((part >= -0.31) & (part <= wide)).all()


def test_nan_and_infinities_only_if_wanted():
    hint = Float[Array, "2"]
    for wanted in (jnp.isnan, jnp.isposinf, jnp.isneginf):
        find(arrays(hint, finite=False), lambda x, wanted=wanted: bool(wanted(x).any()))

    @given(arrays(hint))
    def check(x):
        x = np.abs(x)
        assert np.isfinite(x).all() and not ((x != 0) & (x < np.finfo("float32").tiny)).any()

    check()


def test_bounds_are_checked():
    with pytest.raises(ValueError, match=r"minimum 1 is above maximum 0"):
        arrays(Float[Array, ""], minimum=1, maximum=0)
    with pytest.raises(ValueError, match=r"no uint8 lies from -5 to -1"):
        find(arrays(UInt8[Array, ""], minimum=-5, maximum=-1), lambda x: True)
