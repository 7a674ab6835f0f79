"""Drawn templates: every layer, in valid configurations only."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing import TemplateExample, arrays, inputs, modules, templates
from oryxstate.testing._catalogue import CATALOGUE

PUBLIC = [
    kind
    for kind in map(vars(nn).get, nn.__all__)
    if inspect.isclass(kind) and issubclass(kind, nn.Layer) and not inspect.isabstract(kind)
]


class Scaled(nn.Layer):
    """A layer that is in no catalogue."""

    scale: Float[Array, " features"] = ox.param()
    power: int = ox.static(default=1)

    @classmethod
    def check(cls, power: int = 1, **options):
        if power < 0:
            raise ValueError("negative")

    @classmethod
    def initialize(cls, init_key, in_spec, power: int = 1, *, first: float = 1.0):
        scale = jnp.full(in_spec.shape[-1], first)
        return nn.LayerParams(params={"scale": scale}, info={"power": power})

    def call(self, x: Float[Array, "time features"], *, training: bool = False):
        return self.scale[None] * x**self.power


def test_every_public_layer_is_in_the_catalogue():
    assert len(PUBLIC) >= 50
    assert set(CATALOGUE) == set(PUBLIC)


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
@settings(max_examples=6)
@given(st.data())
def test_the_spec_is_that_of_the_output(kind, data):
    """Only traced: each new shape would be compiled."""
    template, specs = data.draw(templates(kind))
    assert template.layer is kind
    model = jax.eval_shape(lambda key: template.init(key, *specs), jax.random.key(0))
    args, kwargs = data.draw(inputs(model, *specs))
    assert ox.make_array_spec(args) == specs

    def run(model, *args):
        return model.call_and_update(*args, **kwargs)

    y, new = jax.eval_shape(run, model, *args)
    assert template.spec(*specs) == ox.make_array_spec(y)
    assert [jax.typeof(leaf) for leaf in jax.tree.leaves(new)] == [
        jax.typeof(leaf) for leaf in jax.tree.leaves(model)
    ]


@pytest.mark.parametrize("kind", [nn.BatchNorm, nn.Dropout])
@settings(max_examples=4)
@given(st.data())
def test_examples_train_in_a_vmap(kind, data):
    template, specs = data.draw(templates(kind))
    model = template.init(jax.random.key(0), *specs)
    args, kwargs = data.draw(inputs(model, *specs, examples=3, training=True))
    ys = jax.vmap(lambda *xs: model.call(*xs, **kwargs))(*args)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(ys))


@settings(max_examples=10)
@given(templates())
def test_any_layer(example):
    assert isinstance(example, TemplateExample)
    assert example.template.layer in PUBLIC


@given(templates(Scaled))
def test_a_layer_of_the_users(example):
    template, specs = example
    assert template.layer is Scaled and specs[0].ndim == 2
    assert template.spec(*specs) == specs[0]


@given(modules(Scaled, scale=arrays(Float[Array, "7"])))
def test_a_field_of_a_layer_can_be_given(layer):
    assert layer.scale.shape == (7,) and layer.power >= 0


def test_the_options_are_drawn():
    wanted = {
        nn.Dense: {"use_bias": False},
        nn.Conv: {"strides": 2, "padding": "CIRCULAR", "dilation": 2, "groups": 2},
        nn.RNN: {"reverse": True, "return_sequence": False},
        nn.MultiHeadAttention: {"causal": True, "rotary_base": 100.0},
    }
    for kind, options in wanted.items():
        for option in options.items():
            find(templates(kind), lambda example, option=option: option in example.template.options)
    find(templates(nn.MultiHeadAttention), lambda example: len(example.specs) == 2)


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"give a class of layers that is not abstract, got .*Rec"):
        templates(nn.RecurrentCell)
    with pytest.raises(TypeError, match=r"got <class 'int'>"):
        templates(int)
