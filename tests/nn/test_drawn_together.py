"""Equal parts of chains and branches: inferred once, drawn together, with the numbers of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE
from strategies import assert_same

import oryxstate as ox
from oryxstate import nn
from oryxstate.nn import _layer, _together
from oryxstate.nn._template import in_spec_of

KEY = jax.random.key(3)


@pytest.mark.parametrize("name", CATALOGUE)
def test_inferred_specs_are_those_of_a_call(name):
    """By the rule of a layer, where it has one, as by tracing it."""
    template, specs, *_ = CATALOGUE[name]

    def check(key):
        layer, infer = template.build(key, in_spec_of(specs))
        if isinstance(layer, nn.Layer):
            assert infer() == layer.spec(*specs)
        return layer

    jax.eval_shape(check, KEY)


def test_layers_with_a_rule_are_not_traced(monkeypatch):
    monkeypatch.setattr(_layer.Layer, "spec", lambda *_: pytest.fail("traced"))
    chain = nn.Flatten.of() >> nn.Dense.of(4, param_dtype=jnp.bfloat16) >> nn.Dropout.of(0.5)
    chain = chain >> nn.BatchNorm.of() >> nn.LayerNorm.of(dtype="float16") >> nn.RMSNorm.of()
    for dtype, out in ("float32", "float32"), ("float64", "float32"), ("bfloat16", "float32"):
        with jax.numpy_dtype_promotion("standard"):
            infer = chain.build(KEY, ox.ArraySpec((2, 3), dtype))[1]
            assert infer() == ox.ArraySpec((4,), out)


class Wider(nn.Dense):
    """Returns more than what it inherits from does."""

    def call(self, x):
        return jnp.concatenate([super().call(x)] * 2)


def test_a_subclass_is_traced():
    chain = Wider.of(2) >> nn.Dense.of(3)
    assert ox.init(chain)(KEY, jnp.ones(3)).layers[1].kernel.shape == (4, 3)


@pytest.fixture
def built(monkeypatch):
    """The parts that are built, one for each time."""
    found, build = [], _together.build
    monkeypatch.setattr(_together, "build", lambda *a: found.append(a[0]) or build(*a))
    return found


def alone(template, specs, monkeypatch):
    """A model, each layer of which is drawn by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(_together, "AT_LEAST", 10**9)
        return template.init(KEY, *specs)


def test_a_chain_is_drawn_in_three_parts(built, monkeypatch):
    dense, tanh = nn.Dense.of(4), jnp.tanh
    residual = nn.Residual.of(nn.Dense.of(4) >> tanh)
    chain, specs = nn.Serial.of(*[dense, tanh, residual] * 5), (jnp.ones(4),)
    model = chain.init(KEY, *specs)
    # Once to see what it is, once for the others; a function is only looked at.
    assert {part: built.count(part) for part in (dense, tanh, residual)} == {
        dense: 4,  # as often in the residuals
        tanh: 3,
        residual: 2,
    }
    expected = alone(chain, specs, monkeypatch)
    assert_same(model, expected)
    assert len({float(layer.kernel[0, 0]) for layer in model.layers[::3]}) == 5
    jitted = jax.jit(lambda key: chain.init(key, *specs))
    assert_same(jitted(KEY), expected, exact=False)


# Uniform, normal and orthogonal draws, and state.
DRAWN = ["Conv", "LSTMCell", "MultiHeadAttention", "Embedding", "BatchNorm", "EMA", "LoRA"]


@pytest.mark.parametrize("name", DRAWN)
def test_the_numbers_are_those_of_each_layer(name, built, monkeypatch):
    template, specs, *_ = CATALOGUE[name]
    together = nn.FanOut.of(*[template] * 4)
    model = together.init(KEY, *specs)
    assert built.count(template) == 2
    assert_same(model, alone(together, specs, monkeypatch))


class Own(nn.Layer):
    """A layer of a user, which may do anything."""

    w: jax.Array

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams({"w": jax.random.normal(init_key, in_spec.shape)})

    def call(self, x):
        return x * self.w


RANDOM = np.random.default_rng(0)


def from_numpy(key, shape, dtype):
    return jnp.asarray(RANDOM.normal(size=shape), dtype)


KERNEL = jnp.ones((3, 3))
ALONE = {
    "a layer of the user": Own.of(),
    "an initializer of the user": nn.Dense.of(3, kernel_init=from_numpy),
    "one inside": nn.Residual.of(nn.Dense.of(3, kernel_init=from_numpy)),
    "a layer that is made": nn.Dense(KERNEL, None),
    "one without arrays": nn.Lambda(jnp.tanh),
    "a made one inside": nn.Residual.of(nn.Dense(KERNEL, None)),
}


@pytest.mark.parametrize("name", ALONE)
def test_drawn_alone(name, built):
    """Each call of an initializer may give other numbers; what is made is shared."""
    chain = nn.Serial.of(*[ALONE[name]] * 5)
    model = chain.init(KEY, jnp.ones(3))
    assert built.count(ALONE[name]) == 5
    leaves = [leaf for layer in model.layers for leaf in jax.tree.leaves(layer)]
    if "without" in name:
        assert all(layer is ALONE[name] for layer in model.layers)
    elif "made" in name:
        assert all(leaf is KERNEL for leaf in leaves)
    else:
        assert len({float(leaf.ravel()[0]) for leaf in leaves} - {0.0}) == 5


def test_other_generators_and_large_layers_are_drawn_alone(built, monkeypatch):
    dense = nn.Dense.of(3)
    chain = nn.Serial.of(*[dense] * 7)
    chain.init(jax.random.key(0, impl="rbg"), jnp.ones(3))
    assert built.count(dense) == 7
    chain.init(jax.random.PRNGKey(0), jnp.ones(3))  # threefry
    assert built.count(dense) == 7 + 2
    monkeypatch.setattr(_together, "ELEMENTS", 3 * 12)
    chain.init(KEY, jnp.ones(3))
    assert built.count(dense) == 9 + 1 + 2  # one, and two times three
    monkeypatch.setattr(_together, "ELEMENTS", 2 * 12)
    chain.init(KEY, jnp.ones(3))
    assert built.count(dense) == 12 + 7


def test_equal_configurations_of_another_type_are_told_apart(built):
    parts = [nn.Dropout.of(0.5), nn.LayerNorm.of(epsilon=1), nn.LayerNorm.of(epsilon=1.0)]
    model = nn.Serial.of(*parts * 4).init(KEY, jnp.ones(3))
    kinds = [type(layer.epsilon) for layer in model.layers if isinstance(layer, nn.LayerNorm)]
    assert kinds == [int, float] * 4


def test_an_input_that_a_later_part_does_not_take():
    with pytest.raises(ValueError, match=r"layers\[2\]"):
        nn.Serial.of(nn.Dense.of(3), nn.Flatten.of(), nn.Conv.of(3, 3)).init(KEY, jnp.ones(3))
