"""The code that is printed for a value, run to make the value again."""

from __future__ import annotations

import ast
import enum
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float, Int, Key

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing import (
    TemplateExample,
    _hypothesis,
    arrays,
    code,
    inputs,
    keys,
    modules,
    rebuild,
    templates,
)
from oryxstate.testing._shown import same_value


class Mode(enum.Enum):
    FAST = 1


class Pair(NamedTuple):
    left: Any
    right: Any


def double(x):
    return 2 * x


class Affine(eqx.Module):
    weight: Array
    activation: Any


class Linear(ox.Module):
    kernel: Float[Array, "n m"] = ox.param()
    count: Int[Array, ""] = ox.state()
    mode: Any = ox.static(default=Mode.FAST)

    def call(self, x: Float[Array, "n"]):
        return x @ self.kernel


class Outer(ox.Module):
    linear: Linear
    by_name: dict[str, Linear]
    key: Key[Array, "n"] = ox.state()


class Own(ox.Module):
    kernel: Float[Array, "n"]

    def __init__(self, first: Float[Array, "n"], *, times: int = 2):
        self.kernel = times * first


class Doubled(ox.Module):
    """What its constructor is given is not what it holds."""

    kernel: Float[Array, "n"] = ox.param(converter=double)


NAMES = {
    **{n: v for n, v in vars(nn).items() if not n.startswith("_")},
    **{k.__name__: k for k in (Mode, Pair, Affine, Linear, Outer, Own, Doubled, TemplateExample)},
    **{"jax": jax, "jnp": jnp, "np": np, "rebuild": rebuild, "double": double},
    "ArraySpec": ox.ArraySpec,
}


def again(value):
    return eval(code(value), dict(NAMES))


@pytest.mark.parametrize(
    "value",
    [
        jnp.array([[0.1, -0.0], [jnp.nan, jnp.inf]]),
        jnp.array([-jnp.inf, 1e30, 1e-30]),
        jnp.zeros((0, 3), "int32"),
        jnp.full((5, 5), 0.3, "bfloat16"),
        jnp.full((3, 4), -0.0, "float32"),
        jnp.array([0.0] * 9 + [-0.0]),
        jnp.array([1, 2], "uint8"),
        jnp.array([1, 2], "int4"),
        jnp.array([1 / 3], "float16"),
        jnp.array([1.5], "float8_e4m3fn"),
        jnp.array([True, False]),
        jnp.array([1 + 2j, complex(jnp.nan, -0.0)]),
        jnp.asarray(2.0),
        jnp.asarray(7),
        np.array([1.5, np.nan]),
        jax.random.key(0),
        jax.random.key(2**31 - 1),
        jax.random.fold_in(jax.random.key(0), 1),
        jax.random.key(3, impl="rbg"),
        jax.random.split(jax.random.key(0), (2, 1)),
    ],
    ids=lambda x: f"{x.dtype}{x.shape}",
)
def test_arrays_are_made_again_bit_for_bit(value):
    if isinstance(value, np.ndarray):
        assert again(value).tobytes() == value.tobytes() and again(value).dtype == value.dtype
    else:
        assert same_value(again(value), value)


@settings(max_examples=50)
@given(st.data())
def test_any_array(data):
    hint = data.draw(st.sampled_from([Float[Array, "*a b"], Int[Array, "*a"], Key[Array, "a"]]))
    finite = hint.dtype is not Float
    value = data.draw(arrays(hint, minimum=-1e6, maximum=1e6, finite=finite))
    assert same_value(again(value), value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jnp.zeros((2, 1)), "jnp.array([[0.0], [0.0]], 'float32')"),
        (jnp.ones((3, 3), "int32"), "jnp.full((3, 3), 1, 'int32')"),
        (jax.random.key(5), "jax.random.key(5)"),
        (ox.ArraySpec((2, 3)), "ArraySpec((2, 3), 'float32')"),
        (nn.Dense.of(4, use_bias=False), "Dense.of(4, use_bias=False)"),
        (nn.Dense.of(2) >> jax.nn.relu, "Serial.of(Dense.of(2), jax.nn.relu)"),
        (Pair(1, [2.0, None]), "Pair(left=1, right=[2.0, None])"),
        ((Mode.FAST,), "(Mode.FAST,)"),
        ({"f": jnp.tanh, "g": double, 3: ()}, "{'f': jnp.tanh, 'g': double, 3: ()}"),
        (float("nan"), "jnp.nan"),
        (-float("inf"), "-jnp.inf"),
        (jnp.dtype("bfloat16"), "jnp.dtype('bfloat16')"),
        ([jnp.float32, jax.lax.add], "[jnp.float32, jax.lax.add]"),
        (
            Affine(jnp.ones(1), jnp.sin),
            "Affine(weight=jnp.array([1.0], 'float32'), activation=jnp.sin)",
        ),
    ],
)
def test_code(value, text):
    assert code(value) == text
    assert code(again(value)) == text


@settings(max_examples=15)
@given(st.sampled_from([Outer, Own, Doubled]).flatmap(modules))
def test_modules_are_made_again(module):
    assert same_value(again(module), module)
    copy = jax.tree.map(lambda x: x, module)  # of which nobody knows how it was drawn
    assert same_value(again(copy), module)


@settings(max_examples=5)
@given(modules(nn.MLP), modules(nn.Dense, bias=None))
def test_layers_are_made_again_by_their_templates(mlp, dense):
    assert code(mlp).startswith("MLP.of(") and code(dense).endswith(".replace(bias=None)")
    for layer in (mlp, dense):
        assert same_value(again(layer), layer)
        assert same_value(again(jax.tree.map(lambda x: x, layer)), layer)


def test_what_a_constructor_does_not_give_back():
    module = jax.tree.map(lambda x: x, Doubled(jnp.array([1.0])))
    assert code(module) == "rebuild(Doubled, kernel=jnp.array([2.0], 'float32'))"
    assert code(Own(jnp.array([1.0]))) == "rebuild(Own, kernel=jnp.array([2.0], 'float32'))"


def test_names_in_code_are_short():
    assert code(Linear(jnp.ones((1, 1)), jnp.int32(0), Mode.FAST)) == (
        "Linear(kernel=jnp.array([[1.0]], 'float32'), count=jnp.array(0, 'int32'))"
    )


# What Hypothesis prints -----------------------------------------------------------------------


def printed(test):
    """The arguments of the example that Hypothesis prints for a test that fails."""
    with pytest.raises(AssertionError) as caught:
        test()
    (text,) = (
        note for note in caught.value.__notes__ if "test case: " in note or "example: " in note
    )
    text = text[text.index("(") - len("test") :]
    call = ast.parse(text, mode="eval").body
    return {k.arg: eval(ast.unparse(k.value), dict(NAMES)) for k in call.keywords}


def test_a_falsifying_example_can_be_run():
    seen = {}

    @settings(database=None, phases=[Phase.generate, Phase.shrink])
    @given(
        outer=modules(Outer),
        own=modules(Own),
        layer=modules(nn.Dropout),
        x=arrays(Float[Array, "n"]),
        key=keys(),
        example=templates(nn.Conv),
        call=inputs(Linear(jnp.ones((1, 2)), jnp.int32(0))),
    )
    def test(**arguments):
        seen.update(arguments)
        assert arguments["outer"].linear.kernel.sum() <= 1

    found = printed(test)
    assert found.keys() == seen.keys() and same_value(
        found["outer"].linear.kernel, jnp.array([[2.0]])
    )
    for name, value in found.items():
        assert same_value(value, seen[name]), name


def test_a_registered_class_is_printed_by_from_type():
    @settings(database=None)
    @given(linear=st.from_type(Linear))
    def test(linear):
        assert linear.kernel.size < 2

    assert printed(test)["linear"].kernel.shape in ((1, 2), (2, 1))


def test_the_names_of_hypothesis_are_there():
    class Kind:
        pass

    assert not _hypothesis.is_registered(Kind) and _hypothesis.is_registered(int)
    _hypothesis.print_as(Kind, lambda value: "shown")
    _hypothesis.resolve_types("ast", lambda hint: st.just(1) if hint is Kind else None)
    found = []

    @settings(database=None)
    @given(kind=st.from_type(Kind))
    def test(kind):
        found.append(kind)

    test()
    assert set(found) == {1}
