"""Drawn inputs, which fit the model that they are drawn for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from hypothesis import find, given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Bool, Float, Int, jaxtyped

import oryxstate as ox
from oryxstate import ArraySpec, nn
from oryxstate.testing import Sizes, arrays, inputs, modules

THREE = jnp.ones((2, 3))


class Linear(ox.Module):
    kernel: Float[Array, "in out"]
    bias: Float[Array, "*batch out"] | None = None

    def call(self, x: Float[Array, "b in"]) -> Float[Array, "b out"]:
        return x @ self.kernel


class Rule(ox.Module):
    """What the author wrote is `call_and_update`."""

    total: Float[Array, "n"] = ox.state()

    def call_and_update(self, x: Float[Array, "n"]):
        return x, self.replace(total=self.total + x)


class Many(ox.Module):
    """A parameter of each kind."""

    size: int = ox.static(default=3)
    parts: list[Float[Array, "n _"]] = ox.param(default_factory=list)

    def call(
        self,
        x: Float[Array, "{self.size} n"],
        /,
        pair: tuple[Float[Array, "n"], dict[str, Int[Array, "m"]]],
        mask: Bool[Array, "n"] | None = None,
        *rest: Float[Array, "m"],
        scale: Float[Array, ""],
        offset: Float[Array, "n"] | None = None,
        training: bool = False,
        **more: Any,
    ):
        return x, pair, mask, rest, scale, offset, training


class Around(ox.Module):
    first: Linear
    second: Linear

    def call(self, x: Float[Array, "in"], y: Float[Array, "out"]):
        return x, y


class Noisy(ox.Module):
    dense: nn.Dense
    layers: list[Any]

    def call(self, x: Float[Array, "... in"]):
        for layer in self.layers:
            x = layer(x)
        return x


class Louder(nn.Layer):
    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams()

    def call(self, x, *, volume: Float[Array, "2"], rng: Any = None):
        return x * volume.sum()


class Masked(ox.Module):
    def call(self, x: Float[Array, "time _"], *, mask: Bool[Array, "time"]):
        return x[mask.argmax()]


class Sum(ox.Module):
    def call(self, x: Float[Array, "*batch n"], y: Float[Array, "*batch n"]):
        return x + y


class Weighted(ox.Module):
    def call(self, *xs: Float[Array, "n"], scale: Float[Array, "m"]):
        return [scale.sum() * x for x in xs]


class Untyped(ox.Module):
    def call(self, x, y=3):
        return x


class Silent(ox.Module):
    pass


@given(st.data())
def test_names_are_those_of_the_fields(data):
    linear = data.draw(modules(Linear, bias=None))
    (x,), kwargs = data.draw(inputs(linear))
    assert x.ndim == 2 and x.shape[1] == linear.kernel.shape[0] and kwargs == {}
    assert linear(x).shape == (len(x), linear.kernel.shape[1])


def test_other_names_are_free():
    linear = Linear(THREE)
    assert {
        find(inputs(linear), lambda call, n=n: len(call[0][0]) == n)[0][0].shape[0] for n in (1, 4)
    } == {1, 4}
    ((x,), _) = find(inputs(linear, sizes={"b": 6}), lambda call: True)
    assert x.shape == (6, 2)
    ((x,), _) = find(inputs(linear, sizes={"in": 5}), lambda call: True)
    assert x.shape[1] == 5  # what is said goes first


@given(st.data())
def test_names_are_shared_with_targets(data):
    sizes = Sizes()
    linear = data.draw(modules(Linear, sizes=sizes, bias=None))
    (x,), _ = data.draw(inputs(linear, sizes=sizes))
    target = data.draw(arrays(Float[Array, "b out"], sizes=sizes))
    assert linear(x).shape == target.shape


@settings(max_examples=10)
@given(inputs(Rule(jnp.ones(3))))
def test_the_method_that_was_written(call):
    (x,), kwargs = call
    assert x.shape == (3,) and kwargs == {}
    assert Rule(jnp.ones(3)).call_and_update(x)[1].total.shape == (3,)


@given(inputs(Many(parts=[jnp.ones((2, 5))])))
def test_parameters_are_what_their_annotations_say(call):
    args, kwargs = call
    module = Many()

    @jaxtyped(typechecker=beartype)
    def check(
        self,
        x: Float[Array, "{self.size} n"],
        pair: tuple[Float[Array, "n"], dict[str, Int[Array, "m"]]],
        mask: Bool[Array, "n"] | None,
        *rest: Float[Array, "m"],
        scale: Float[Array, ""],
        offset: Float[Array, "n"] | None = None,
        training: bool,
    ):
        return x.shape

    assert check(module, *args, **kwargs) == (3, 2)
    module(*args, **kwargs)


def test_defaults_are_drawn_and_others():
    strategy = inputs(Many())
    for wanted in (
        lambda args, kwargs: args[2] is None and "offset" not in kwargs,
        lambda args, kwargs: args[2] is not None and len(args) == 5,
        lambda args, kwargs: kwargs["training"] and kwargs.get("offset") is not None,
        lambda args, kwargs: args[0].shape[1] == 4,
    ):
        find(strategy, lambda call, wanted=wanted: wanted(*call))


def test_names_of_modules_inside_unless_they_disagree():
    around = Around(Linear(jnp.ones((2, 3))), Linear(jnp.ones((2, 4))))
    find(inputs(around), lambda call: call[0][1].shape == (1,))

    @given(inputs(around))
    def check(call):
        assert call[0][0].shape == (2,)

    check()


def model_of(*layers):
    dense = nn.Dense(jnp.ones((3, 3)), None)
    return Noisy(dense, list(layers))


@settings(max_examples=15)
@given(inputs(model_of(nn.Dropout(0.5), Louder())))
def test_keywords_of_layers_inside(call):
    args, kwargs = call
    assert args[0].shape[-1] == 3 and set(kwargs) == {"training", "rng", "volume"}
    assert kwargs["volume"].shape == (2,) and kwargs["rng"].dtype == jax.random.key(0).dtype
    model_of(nn.Dropout(0.5), Louder())(*args, **kwargs)


def test_both_modes_are_drawn_unless_the_batch_is_needed():
    dropout = inputs(model_of(nn.Dropout(0.5)))
    find(dropout, lambda call: call[1]["training"])
    ones, zeros = jnp.ones(3), jnp.zeros(3)
    norm = model_of(nn.BatchNorm(ones, zeros, zeros, ones))
    find(inputs(norm, examples=2), lambda call: call[1]["training"])

    @settings(max_examples=10)
    @given(inputs(norm))
    def check(call):
        assert call[1] == {"training": False}

    check()


@given(inputs(Linear(THREE), examples=5), inputs(Many(), examples=5))
def test_examples(linear, many):
    assert linear[0][0].shape[::2] == (5, 2)
    args, kwargs = many
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(args))
    assert kwargs["scale"].shape == ()
    assert jax.vmap(Linear(THREE))(*linear[0]).shape[::2] == (5, 3)


@given(inputs(model_of(nn.Dropout(0.1)), ox.ArraySpec(4), ox.ArraySpec((2, 1), "int32")))
def test_specs_instead_of_annotations(call):
    args, kwargs = call
    assert ox.make_array_spec(args) == (ox.ArraySpec(4), ox.ArraySpec((2, 1), "int32"))
    assert set(args[1].ravel().tolist()) <= {0, 1} and set(kwargs) == {"training", "rng"}


@given(inputs(Many(), mask=None, rest=(), training=True, pair=st.just(0)))
def test_arguments_can_be_given(call):
    args, kwargs = call
    assert args[1:] == (0, None) and kwargs["training"] is True


@given(inputs(Linear(THREE), x=arrays(Float[Array, "7 2"])))
def test_strategies_can_be_given(call):
    assert call[0][0].shape == (7, 2)


def test_inputs_shrink():
    (x,), _ = find(inputs(Linear(THREE)), lambda call: bool(call[0][0].sum() > 1))
    assert x.shape == (1, 2) and x.sum() == 2


# What cannot be drawn -------------------------------------------------------------------------


def test_a_parameter_without_annotation_says_so():
    with pytest.raises(TypeError) as caught:
        find(inputs(Untyped()), lambda call: True)
    assert str(caught.value).splitlines()[0] == (
        "`x` of `Untyped.call` has no annotation that says what it is. Give a strategy for it: "
        "`inputs(module, x=strategy)`."
    )
    assert find(inputs(Untyped(), x=1), lambda call: True) == ((1, 3), {})
    with pytest.raises(TypeError, match=r"`inputs` of `Serial.call` has no annotation .*inputs="):
        find(inputs(nn.Serial((nn.Lambda(jnp.tanh),))), lambda call: True)


@pytest.mark.parametrize(
    ("given", "takes"),
    [({"z": 1}, "It takes x, y"), ({"training": True}, "It takes x, y"), ({"self": 1}, "")],
)
def test_an_unknown_argument_says_so(given, takes):
    with pytest.raises(TypeError, match=rf"`Untyped.call` has no parameter `\w+` .*{takes}"):
        inputs(Untyped(), **given)
    with pytest.raises(TypeError, match=r"has no parameter `x` to draw. It takes nothing else"):
        inputs(Untyped(), ox.ArraySpec(2), x=1)


def test_a_class_is_no_module():
    with pytest.raises(TypeError, match=r"inputs: give a module, got .*A class has `modules\("):
        inputs(Linear)
    with pytest.raises(TypeError, match=r"Silent defines neither `call` nor `call_and_update`"):
        inputs(Silent())


@pytest.mark.parametrize("time", [1, 4])
def test_keywords_fit_the_specs_of_arguments(time):
    @settings(max_examples=10)
    @given(inputs(Masked(), ArraySpec((time, 2))))
    def check(call):
        (x,), kwargs = call
        assert x.shape == (time, 2) and kwargs["mask"].shape == (time,)

    check()


def test_arguments_fit_a_given_one_with_examples():
    @settings(max_examples=10)
    @given(inputs(Sum(), examples=3, x=jnp.ones((3, 2, 5))))
    def check(call):
        assert call[0][1].shape == (3, 2, 5)

    check()


def test_keywords_are_free_of_specs_that_are_not_theirs():
    """The second spec is another of `*xs`, and not `scale`."""
    drawn = inputs(Weighted(), ArraySpec(2), ArraySpec(4))
    args, _ = find(drawn, lambda call: call[1]["scale"].shape != (4,))
    assert [x.shape for x in args] == [(2,), (4,)]
