"""Every error of construction names class and field, and says what to do (S1)."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox


class Box(ox.Module):
    inner: Any


class Weights(ox.Module):
    weight: Any = ox.param()
    total: Any = ox.state(default=None)
    config: Any = ox.static(default=None)


def error(kind, *texts, make):
    """The construction fails with all these texts, and the library works afterwards."""
    with pytest.raises(kind) as caught:
        make()
    for text in texts:
        assert text in str(caught.value)
    assert jnp.ones(2)[0] + 1 == 2 and Box(jnp.ones(2)).inner.shape == (2,)


@pytest.mark.parametrize(
    "leaf", [3, 2.5, True, "text", object(), len], ids=lambda leaf: type(leaf).__name__
)
@pytest.mark.parametrize(
    ("cls", "field"), [(Box, "inner"), (Weights, "weight"), (Weights, "total")]
)
def test_a_leaf_that_is_no_array(cls, field, leaf):
    rest = {} if field != "total" else {"weight": jnp.ones(1)}
    texts = (f"`{field}` of {cls.__name__}", type(leaf).__name__, "`ox.static()`")
    error(TypeError, *texts, make=lambda: cls(**{field: leaf}, **rest))


def test_the_path_of_a_leaf_deep_in_a_field():
    texts = ("`inner` of Box", "`inner['a'][1]`", "float")
    error(TypeError, *texts, make=lambda: Box({"a": [jnp.ones(1), 2.5]}))


def test_arrays_of_text_and_objects_are_none():
    for value in (np.array(["a"]), np.array([None]), np.datetime64("2020-01-01")):
        error(
            TypeError,
            "`inner` of Box",
            "JAX does not take as an array",
            make=lambda v=value: Box(v),
        )


def test_numpy_arrays_are_arrays():
    assert Box(np.ones(2)).inner.shape == (2,) and Box(np.float32(1)).inner == 1


@pytest.mark.parametrize("value", [jnp.ones(2), np.ones(2), (1, jnp.ones(2)), {"a": np.ones(1)}])
def test_an_array_in_a_static_field(value):
    texts = ("`config` of Weights", "static but holds an array", "`ox.param()`", "`ox.state()`")
    error(TypeError, *texts, make=lambda: Weights(jnp.ones(1), config=value))


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, (1, [2])], ids=repr)
def test_an_unhashable_static_value(value):
    texts = ("`config` of Weights", "hashable", "tuple")
    error(TypeError, *texts, make=lambda: Weights(jnp.ones(1), config=value))


def test_a_module_in_a_static_field_with_arrays():
    inner = Box(jnp.ones(1))
    error(TypeError, "`config` of Weights", make=lambda: Weights(jnp.ones(1), config=inner))


@pytest.mark.parametrize("field", ["weight", "total"])
def test_a_module_in_a_field_declared_param_or_state(field):
    values = {"weight": jnp.ones(1), field: [Box(jnp.ones(1))]}
    texts = (f"`{field}` of Weights", "holds a module", "Leave the specifier out")
    error(TypeError, *texts, make=lambda: Weights(**values))


def closure(array):
    return lambda x: x + array


HIDING = {
    "jit of a closure": lambda a: jax.jit(closure(a)),
    "vmap of a closure": lambda a: jax.vmap(closure(a)),
    "grad of a partial": lambda a: jax.grad(functools.partial(jnp.dot, a)),
    "jit of a method": lambda a: jax.jit(Box(a).update),
    "jit of a jit": lambda a: jax.jit(jax.jit(closure(a))),
    "checkpoint": lambda a: jax.checkpoint(closure(a)),
    "filter_jit": lambda a: eqx.filter_jit(closure(a)),
    "partial of a jit": lambda a: functools.partial(jax.jit(closure(a)), 1),
    "custom_jvp": lambda a: jax.custom_jvp(closure(a)),
}


@pytest.mark.parametrize("hide", HIDING)
def test_a_transformed_function_that_holds_arrays_in_a_static_field(hide):
    texts = ("`config` of Weights", "transformed function", "holds arrays", "inside `call`")
    function = HIDING[hide](jnp.ones(2))
    error(TypeError, *texts, make=lambda: Weights(jnp.ones(1), config=function))


@pytest.mark.parametrize("hide", ["jit of a closure", "custom_jvp", "jit of a method"])
def test_a_transformed_function_that_holds_arrays_in_a_data_field(hide):
    function = HIDING[hide](jnp.ones(2))
    error(TypeError, "`inner` of Box", "transformed function", make=lambda: Box(function))


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.relu, jax.jit(len), jax.vmap(jnp.sum)])
def test_a_transformed_function_without_arrays_is_static(function):
    assert Weights(jnp.ones(1), config=function).config is function


def test_a_field_left_unset():
    class Own(ox.Module):
        weight: Any
        other: Any

        def __init__(self):
            self.weight = jnp.ones(1)

    error(TypeError, "`other` of Own", "left unset", "`self.other = ...`", make=Own)


def test_an_assignment_in_init_to_no_field():
    class Own(ox.Module):
        weight: Any

        def __init__(self):
            self.weight = jnp.ones(1)
            self.weigth = jnp.ones(1)

    texts = ("Own has no field `weigth`", "Did you mean `weight`?", "`weigth: ... = ox.param()`")
    error(AttributeError, *texts, make=Own)


def test_an_unknown_keyword():
    texts = ("Weights has no field `wieght`", "Did you mean `weight`?", "weight, total, config")
    error(TypeError, *texts, make=lambda: Weights(wieght=jnp.ones(1)))
    texts = ("Weights has no field `xyz`", "weight, total, config")
    error(TypeError, *texts, make=lambda: Weights(jnp.ones(1), xyz=1))


def test_replace_checks_as_construction_does():
    module = Weights(jnp.ones(1))
    error(TypeError, "`weight` of Weights", "`ox.static()`", make=lambda: module.replace(weight=3))
    error(TypeError, "`config` of Weights", make=lambda: module.replace(config=jnp.ones(1)))
    error(TypeError, "Did you mean `total`", make=lambda: module.replace(totl=jnp.ones(1)))


@pytest.mark.parametrize("name", ["call", "update", "assign", "replace", "variables", "flatten"])
def test_a_field_that_would_hide_a_method(name):
    def make():
        return type(ox.Module)("Hiding", (ox.Module,), {"__annotations__": {name: Any}})

    error(TypeError, f"`{name}` of Hiding", f"`Module.{name}`", make=make)


def test_both_call_and_call_and_update():
    def make():
        class Both(ox.Module):
            def call(self, x):
                return x

            def call_and_update(self, x):
                return x, self

    error(TypeError, "Both defines both `call` and `call_and_update`", "Write one", make=make)


def test_neither_call_nor_call_and_update():
    texts = ("Box defines neither `call` nor `call_and_update`", "`self.assign(field=value)`")
    for run in (Box(jnp.ones(1)), Box(jnp.ones(1)).update, Box(jnp.ones(1)).call_and_update):
        error(NotImplementedError, *texts, make=lambda run=run: run(1.0))


def test_a_tracer_is_an_array():
    out = jax.jit(lambda x: Box({"a": x}).inner["a"] + 1)(1.0)
    assert out == 2
    with pytest.raises(TypeError, match=r"`config` of Weights is static but holds an array"):
        jax.jit(lambda x: Weights(x, config=x))(1.0)
