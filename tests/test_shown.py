"""What a person sees of a model: its repr, and the drawing of treescope."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import treescope
import wadler_lindig as wl

import oryxstate as ox
from oryxstate import nn


class Net(ox.Module):
    layers: list
    activation: object = ox.static(default=None)

    def call(self, x):
        return x


def dense(features=2):
    return ox.init(nn.Dense.of(features))(jax.random.key(0), jnp.ones(3))


def test_equal_members_are_shown_once_and_functions_by_name():
    model = Net([dense(), dense(), dense(), dense(1), nn.Lambda(jnp.sin)], jax.nn.relu)
    assert repr(model) == (
        "Net(\n"
        "  layers=[\n"
        "    3 x Dense(kernel=f32[3,2], bias=f32[2]),\n"
        "    Dense(kernel=f32[3,1], bias=f32[1]),\n"
        "    Lambda(function=<function sin>)\n"
        "  ],\n"
        "  activation=<function relu>\n"
        ")"
    )


def test_reprs_of_containers_statics_and_abstract_models():
    assert repr(Net([dense()])) == "Net(layers=[Dense(kernel=f32[3,2], bias=f32[2])])"
    assert repr(jax.eval_shape(lambda: dense())) == repr(dense())
    pair = ox.init(nn.Dense.of(2) >> nn.Dense.of(2))(jax.random.key(0), jnp.ones(2))
    assert repr(pair) == "Serial(layers=(2 x Dense(kernel=f32[2,2], bias=f32[2])))"
    one = nn.Serial((dense(),))
    assert repr(one) == "Serial(layers=(Dense(kernel=f32[3,2], bias=f32[2]),))"
    partial = functools.partial(jnp.sum, axis=0)
    assert "partial" in repr(Net([], partial)) and "0x" not in repr(Net([], jnp.float32))
    linear = Net([eqx.nn.Linear(2, 1, key=jax.random.key(0))])
    assert "Linear(" in repr(linear) and "weight=f32[1,2]" in repr(linear)


def test_deep_models_are_shown_in_time_that_grows_with_their_size():
    model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(2))
    for _ in range(100):
        model = nn.Serial((model,))
    assert repr(model).count("Serial") == 100


def test_treescope_marks_fields_with_their_kinds():
    chain = nn.Dense.of(2) >> nn.BatchNorm.of()
    model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
    with treescope.active_autovisualizer.set_scoped(None):
        text = treescope.render_to_text(Net([*model.layers, jnp.ones(1)]), ignore_exceptions=False)
        one = treescope.render_to_text(model.layers[1], ignore_exceptions=False)
        page = treescope.render_to_html(model, ignore_exceptions=False, compressed=False)
    assert text.startswith("Net(\n  layers=[\n")
    kinds = dict(line.split("=", 1) for line in one.splitlines() if "=" in line)
    marks = {name.strip(): value.rpartition("# ")[2] for name, value in kinds.items()}
    expected = {"scale": "param", "bias": "param", "mean": "state", "variance": "state"}
    assert marks == {
        **expected,
        **dict.fromkeys(("momentum", "epsilon", "axis_name", "dtype", "axis"), "static"),
    }
    assert "# state" in page and "BatchNorm" in page


def test_a_plain_array_is_marked_as_a_param_and_children_are_not():
    class Plain(ox.Module):
        weight: jax.Array
        inner: Net

        def call(self, x):
            return x

    text = treescope.render_to_text(Plain(jnp.ones(2), Net([])), ignore_exceptions=False)
    (weight,) = [line for line in text.splitlines() if "weight" in line]
    (inner,) = [line for line in text.splitlines() if "inner=" in line]
    assert weight.endswith("# param") and "#" not in inner


def test_the_text_of_equal_members_is_made_once(monkeypatch):
    made = []
    summary = wl.array_summary
    monkeypatch.setattr(wl, "array_summary", lambda *a, **k: made.append(a) or summary(*a, **k))
    assert repr(Net([dense()] * 50)).count("50 x Dense") == 1
    assert [shape for shape, _ in made] == [(3, 2), (2,)]


def test_members_that_differ_in_one_thing_are_shown_apart():
    half = dense().at["bias"].cast(jnp.float16)
    weak = dense().replace(bias=jnp.broadcast_to(1.0, 2))
    drops = [nn.Dropout(0.1), nn.Dropout(0.2)]
    text = repr(Net([dense(), half, weak, *drops, nn.Lambda(jnp.sin), nn.Lambda(jnp.cos)]))
    assert " x " not in text
    for part in ("f16[2]", "weak_f32[2]", "0.1", "0.2", "sin", "cos"):
        assert part in text
