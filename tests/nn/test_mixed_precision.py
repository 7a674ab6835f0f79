"""The precision of a model: what a policy reaches, and what it leaves as it is."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE
from hosts import close

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
BF16 = jnp.dtype("bfloat16")
# State of their own kind, which examples of a batch do not share.
ALONE = {"SimpleRNNCell", "GRUCell", "LSTMCell", "RNN, stateful", "CachedAttention", "SpectralNorm"}


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "MixedPrecision"])
def test_every_layer_computes_in_the_given_dtype(name):
    """Outputs are in it before they are converted; parameters and statistics stay float32."""
    template, specs, _ = CATALOGUE[name]
    xs = [jnp.ones(spec.shape, spec.dtype) for spec in specs]
    model = nn.MixedPrecision.of(template).init(KEY, *xs)
    low = [x.astype(BF16) if x.dtype == jnp.float32 else x for x in xs]
    assert dtypes(model.layer(*low, training=False)) == {"bfloat16"}
    if name in ALONE:
        y, new = ox.call_and_update(model, *xs, training=True, rng=KEY)
    else:
        more = [jnp.stack([x, x]) for x in xs]
        y, new = ox.batch_call_and_update(model, *more, training=True, rng=KEY)
    assert dtypes(y) == {"float32"}
    assert dtypes(ox.partition(new)[0]) <= {"float32"} and dtypes(new.state) <= {"float32", "int32"}
    assert jax.tree.structure(new) == jax.tree.structure(model)


def test_a_policy_is_the_dtypes_given_to_each_layer_by_hand():
    def net(**dtype):
        norm = nn.BatchNorm.of(**dtype)
        block = nn.ResNetBlock.of(4, norm=norm, **dtype)
        return nn.Conv.of(4, 3, **dtype) >> block >> norm >> jnp.ravel >> nn.Dense.of(2, **dtype)

    xs = jax.random.normal(KEY, (4, 6, 6, 3))
    ours = nn.MixedPrecision.of(net()).init(KEY, xs[0])
    by_hand = net(dtype=BF16).init(KEY, xs[0])
    assert jax.tree.structure(ours.layer) == jax.tree.structure(by_hand)

    def loss(model, xs):
        ys, new = ox.batch_call_and_update(model, xs, training=True)
        return jnp.square(ys.astype(jnp.float32)).sum(), new

    step = jax.jit(ox.value_and_grad(loss, has_aux=True))
    (value, new), slope = step(ours, xs)
    (expected, updated), gradient = step(by_hand, xs.astype(BF16))
    close((value, new.layer, slope.layer), (expected, updated, gradient))
    assert dtypes(slope) == {"float32"} and dtypes(new.state) == {"float32"}
    assert new.layer[1].body[1].dtype == BF16, "norms inside blocks included"


def test_parameters_and_outputs_have_the_given_dtypes():
    template = nn.MixedPrecision.of(
        nn.Dense.of(4) >> nn.BatchNorm.of(),
        dtype="float16",
        param_dtype="bfloat16",
        out_dtype="float16",
    )
    xs = jnp.ones((4, 3))
    assert template.spec(xs[0], training=False) == ox.ArraySpec(4, "float16")
    model = template.init(KEY, xs[0])
    ys, new = ox.batch_call_and_update(model, xs, training=True)
    assert ys.dtype == "float16" and dtypes(ox.partition(new)[0]) == {"bfloat16"}
    assert dtypes(new.state) == {"float32"}


def test_dtypes_of_its_own_stay_with_a_layer_and_the_inner_policy_rules():
    net = (
        nn.Dense.of(4, dtype="float16")
        >> nn.MixedPrecision.of(nn.Dense.of(3), dtype="float32", param_dtype="bfloat16")
        >> nn.Dense.of(2)
    )
    model = nn.MixedPrecision.of(net).init(KEY, jnp.ones(3))
    first, inner, last = model.layer
    assert (first.dtype, inner.layer.dtype, last.dtype) == ("float16", jnp.float32, BF16)
    assert dtypes(inner.layer) == {"bfloat16"} and dtypes((first, last)) == {"float32"}
    assert model(jnp.ones(3)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("param_dtype", ["float16", "bfloat16", "float32"])
def test_a_policy_inside_may_have_any_dtypes(dtype, param_dtype):
    inner = nn.MixedPrecision.of(nn.Dense.of(2), dtype=dtype, param_dtype=param_dtype)
    for part in (inner, nn.Dense.of(3) >> inner):
        model = nn.MixedPrecision.of(part).init(KEY, jnp.ones(3))
        inside = model.layer if part is inner else model.layer[1]
        assert inside.dtype == inside.layer.dtype == dtype and dtypes(inside) == {param_dtype}
        assert model(jnp.ones(3)).dtype == jnp.float32


computed = []


class Scale(ox.Module):
    """A module that knows nothing of dtypes."""

    scale: jax.Array
    seen: jax.Array = ox.state()

    def call(self, x):
        computed.append((x * self.scale).dtype)
        self.assign(seen=self.seen + x.astype(jnp.float32).sum())
        return x * self.scale


class Holds(ox.Module):
    linear: eqx.nn.Linear
    scales: list

    def call(self, x):
        x = self.linear(x)
        for scale in self.scales:
            x = scale(x)
        return x


def test_modules_that_know_nothing_of_dtypes_compute_in_them_too():
    linear = eqx.nn.Linear(3, 3, key=KEY)
    scales = [Scale(jnp.float32(2), jnp.float32(0)), Scale(jnp.float32(3), jnp.float32(0))]
    held = Holds(linear, scales)
    repeat = nn.Repeat.of(nn.Residual.of(scales[0]), 2)
    x = jnp.array([0.5, -1.0, 2.0])
    model = nn.MixedPrecision.of(nn.Serial.of(held, repeat)).init(KEY, x)
    computed.clear()
    y, new = jax.jit(ox.call_and_update)(model, x)
    assert len(computed) >= 3 and set(computed) == {BF16}
    np.testing.assert_allclose(y, linear(x) * 6 * 9, rtol=0.03)
    hidden = (linear(x) * 2).sum()
    np.testing.assert_allclose(new.layer[0].scales[1].seen, hidden, rtol=0.03)
    assert dtypes(new) == {"float32"}
    assert dtypes(ox.grad(lambda m, x: m(x).sum())(model, x)) == {"float32"}


def test_only_floats_are_converted_and_made_layers_are():
    embedding = nn.Embedding.of(5, 4).init(KEY, jnp.array([1]))
    model = nn.MixedPrecision.of(embedding).init(KEY, jnp.array([1, 2]))
    assert model.layer.dtype == BF16 and embedding.dtype is None
    assert model(jnp.array([1, 2])).dtype == jnp.float32
    pair = nn.MixedPrecision.of(nn.Lambda.of(lambda x: {"ids": jnp.argmax(x), "x": x, "n": 3}))
    out = pair.init(KEY, jnp.ones(3))(jnp.ones(3))
    assert out["ids"].dtype == jnp.int32 and out["x"].dtype == jnp.float32 and out["n"] == 3


def test_the_average_of_parameters_stays_wide():
    template = nn.MixedPrecision.of(nn.EMA.of(nn.Dense.of(2)), param_dtype="bfloat16")
    model = template.init(KEY, jnp.ones(3))
    new = jax.jit(partial(ox.update, training=True))(model, jnp.ones(3))
    assert dtypes(new.layer.average) == {"float32"} and dtypes(new.layer.layer) == {"bfloat16"}
    assert dtypes(new.layer.averaged()) == {"bfloat16"}


@pytest.mark.parametrize("value", [None, "int8", "bf16", 16])
def test_what_is_no_floating_dtype_is_refused(value):
    text = "MixedPrecision: `dtype` is a floating-point dtype, such as 'bfloat16' or 'float32', got"
    with pytest.raises(ValueError, match=text):
        nn.MixedPrecision.of(nn.Dense.of(2), dtype=value)
    with pytest.raises(ValueError, match=text):
        nn.MixedPrecision(nn.Dense.of(2).init(KEY, jnp.ones(3)), dtype=value)
