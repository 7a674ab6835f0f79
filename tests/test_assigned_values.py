"""State keeps its dtype, and refuses a value that the dtype cannot hold (S5)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox


class Held(ox.Module):
    value: jax.Array = ox.state()

    def call(self, new):
        self.assign(value=new())


class Net(ox.Module):
    parts: Any

    def call(self, new):
        for part in self.parts:
            part(new)


def updated(dtype, value, how):
    run = ox.update if how == "eager" else jax.jit(ox.update, static_argnums=1)
    return run(Net([Held(jnp.zeros((), dtype))]), lambda: value).parts[0].value


FITTING = [
    ("int8", 127),
    ("int8", -128),
    ("uint8", 255),
    ("uint32", 2**32 - 1),
    ("float32", 2**40),
    ("float32", 3.4028235e38),  # rounds to the largest
    ("float32", float("inf")),
    ("bfloat16", 1.5),
    ("complex64", 1e30),
    ("int4", 7),
    ("int32", np.int64(5)),
    ("float32", np.float64(0.5)),
]
TOO_LARGE = [
    ("int8", 300, "-128 to 127"),
    ("int8", -129, "-128 to 127"),
    ("uint8", -1, "0 to 255"),
    ("uint32", 2**32, "0 to 4294967295"),
    ("int32", 10**30, "-2147483648 to 2147483647"),
    ("int4", 8, "-8 to 7"),
    ("float32", 1e300, "3.40282"),
    ("float32", -(10**400), "3.40282"),
    ("float16", 70000, "65504"),
    ("complex64", 1e300j, "3.40282"),
    ("float32", np.float64(1e300), "3.40282"),
    ("int32", np.int64(2**40), "-2147483648 to 2147483647"),
]


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize(("dtype", "value"), FITTING)
def test_a_scalar_in_range_is_cast(dtype, value, how):
    new = updated(dtype, value, how)
    assert new.dtype == dtype and not new.weak_type
    assert new == jnp.asarray(np.asarray(value, new.dtype))


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize(("dtype", "value", "bounds"), TOO_LARGE)
def test_a_scalar_out_of_range_is_refused(dtype, value, bounds, how):
    with pytest.raises(ValueError) as caught:
        updated(dtype, value, how)
    text = str(caught.value)
    assert "state 'parts[0].value' of Held was given " + repr(value) in text
    assert f"dtype {dtype} cannot hold" in text and bounds in text


def test_an_array_with_one_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"'value' of Held was given array.*float32 cannot hold"):
        Held(jnp.zeros(2)).update(lambda: np.array([1.0, 1e300]))
    assert Held(jnp.zeros((0,), "int32")).update(lambda: np.zeros(0, "int32")).value.shape == (0,)


def test_weakly_typed_state_stays_weakly_typed():
    new = Held(jnp.asarray(1.0)).update(lambda: 3).value
    assert new.weak_type and new == 3


def test_the_error_of_another_dtype_comes_first():
    with pytest.raises(ValueError, match="was given dtype float32, but it has dtype int8"):
        Held(jnp.zeros((), "int8")).update(lambda: 1.5)


def test_variables_of_functions_hold_what_their_dtype_can():
    def f(x):
        n = ox.variable(jnp.zeros((), "uint8"), name="n")
        ox.assign(x, name="n")
        return n

    module = ox.init(f)(jax.random.key(0), 7)
    assert module.update(255).n == 255
    with pytest.raises(ValueError, match=r"variable 'n' was given 256, which its dtype uint8"):
        module.update(256)
