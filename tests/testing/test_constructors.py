"""Construction of drawn modules, and the errors where none can be made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from hypothesis.errors import FailedHealthCheck
from jaxtyping import Array, Float, Int

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing import Sizes, arrays, modules, values

T = TypeVar("T")


class Linear(ox.Module):
    kernel: Float[Array, "in out"] = ox.param()
    bias: Float[Array, "out"] | None = ox.param()
    count: Int[Array, ""] = ox.state()
    scale: float = ox.static(default=1.0)


class Own(ox.Module):
    """An `__init__` of its own."""

    kernel: Float[Array, "n n"]
    size: int = ox.static()

    def __init__(self, kernel: Float[Array, "n n"], *, half: int = 1):
        self.kernel = kernel
        self.size = 2 * half


class Initialized(ox.Module):
    """With a parameter that is not a field."""

    first: dataclasses.InitVar[int]
    kernel: Float[Array, "n"] = ox.param(init=False)

    def __post_init__(self, first):
        if not 2 <= first <= 3:
            raise ValueError(f"first must be 2 or 3, got {first}")
        self.kernel = jnp.full(first, 1.0)


class Even(ox.Module):
    kernel: Float[Array, "n"]

    def __post_init__(self):
        if self.kernel.shape[0] % 2:
            raise ValueError("the length must be even")


class Never(ox.Module):
    kernel: Float[Array, "n"]
    inner: Even | None = None

    def __post_init__(self):
        if self.kernel.shape[0] < 9:
            raise ValueError("the length must be 9 or more")


class Untyped(ox.Module):
    kernel: Any


class Missing(ox.Module):
    kernel: Flaot[Array, "n"]


@given(modules(Own, half=st.integers(1, 3)))
def test_an_init_of_its_own(module):
    assert module.kernel.shape[0] == module.kernel.shape[1] and module.size in (2, 4, 6)


@given(modules(Initialized))
def test_what_validation_refuses_is_no_example(module):
    assert module.kernel.shape in ((2,), (3,))


@given(modules(Even))
def test_lengths_that_validation_refuses(module):
    assert module.kernel.shape[0] in (2, 4)


def test_a_class_that_refuses_all_says_so():
    want = (
        r"no Never could be drawn: all of \d+ examples were refused, the last one with ValueError: "
        r"the length must be 9 or more\. Give strategies for .*: `modules\(Never, field=strategy\)`"
    )
    with pytest.raises(FailedHealthCheck, match=want):
        find(modules(Never), lambda module: True)

    @given(modules(Never))
    def test(module):
        raise AssertionError("never")

    with pytest.raises(FailedHealthCheck, match=want):
        test()
    module = find(modules(Never, kernel=arrays(Float[Array, "9"])), lambda module: True)
    assert module.kernel.shape == (9,)
    module = find(modules(Never, sizes={"n": 10}, inner=None), lambda module: True)
    assert module.kernel.shape == (10,)


def test_a_number_for_an_array_says_what_is_wrong():
    class Number(ox.Module):
        rate: float = ox.param()

    with pytest.raises(FailedHealthCheck, match=r"with TypeError: field `rate` of Number holds"):
        find(modules(Number), lambda module: True)


# Which names mean the same ----------------------------------------------------------------------


class Twice(ox.Module):
    first: Linear
    second: Linear
    scale: Float[Array, "in"]


def test_each_module_has_names_of_its_own():
    find(modules(Twice), lambda m: m.first.kernel.shape != m.second.kernel.shape)
    find(modules(Twice), lambda m: m.first.kernel.shape[0] != m.scale.shape[0])


@given(modules(Twice, sizes={"in": 3}))
def test_names_that_are_given_hold_inside(module):
    assert {module.first.kernel.shape[0], module.second.kernel.shape[0]} == {3}
    assert module.scale.shape == (3,)


def test_modules_share_sizes():
    sizes = Sizes()

    @given(modules(Linear, sizes=sizes), arrays(Float[Array, "b in"], sizes=sizes))
    def check(linear, x):
        assert (x @ linear.kernel).shape[1] == linear.kernel.shape[1]

    check()


@given(modules(Linear, kernel=arrays(Float[Array, "2 5"])))
def test_other_fields_fit_those_that_are_given(module):
    assert module.kernel.shape == (2, 5) and (module.bias is None or module.bias.shape == (5,))


@given(modules(Linear, count=jnp.array(7, jnp.int32), scale=3.0, name="encoder"))
def test_values_can_be_given(module):
    assert (int(module.count), module.scale, module.name) == (7, 3.0, "encoder")


# What cannot be drawn -------------------------------------------------------------------------


def test_a_field_without_meaning_says_so():
    with pytest.raises(TypeError) as caught:
        find(modules(Untyped), lambda module: True)
    assert str(caught.value).splitlines()[0] == (
        "`kernel` of Untyped has no annotation that says what it is. Give a strategy for it: "
        "`modules(Untyped, kernel=strategy)`."
    )
    assert find(modules(Untyped, kernel=arrays(jax.Array)), lambda m: True).kernel.shape == ()
    want = r"`kernel` of Missing is annotated `Flaot\[Array, 'n'\]`, which has no meaning here"
    with pytest.raises(TypeError, match=want):
        find(modules(Missing), lambda module: True)
    with pytest.raises(TypeError, match=r"is a function of 0 arguments, of which none are known"):
        find(values(Callable[[], int]), lambda value: True)
    with pytest.raises(TypeError, match=r"is annotated with the type variable `~T`"):
        find(values(T), lambda value: True)


def test_what_is_no_class_of_modules_is_refused():
    with pytest.raises(TypeError, match=r"modules: give a class of modules, got <class 'int'>"):
        modules(int)
    with pytest.raises(TypeError, match=r"modules: Linear has no field `kernle`. Did you mean `k"):
        modules(Linear, kernle=1)
    with pytest.raises(TypeError, match=r"modules: Dense has no field `size`"):
        modules(nn.Dense, size=1)
