"""Changes of what is selected, `model.at[selection]`, and labels."""

import jax
import jax.numpy as jnp
import pytest
from selected import Norm, net

import oryxstate as ox
from oryxstate import select


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jitted"])
def test_set_apply_cast_and_take(transform):
    model = net()
    zeroed = transform(lambda m: m.at[select.state].set(0))(model)
    assert [float(x) for x in select.state.get(zeroed).values()] == [0, 0, 0, 0]
    assert jax.tree.structure(zeroed) == jax.tree.structure(model)
    assert zeroed.encoder[1].scale.tolist() == [1, 1]
    by_path = {"encoder[0].scale": jnp.zeros(2), "encoder[1].scale": 5.0}
    changed = transform(lambda m: m.at["encoder[:2].scale"].set(by_path))(model)
    assert changed.encoder[1].scale.tolist() == [5, 5]
    doubled = transform(lambda m: m.at["encoder"].apply(lambda x: 2 * x))(model)
    assert doubled.encoder[1].mean == 2 and doubled.head["a b"].mean == 3
    half = transform(lambda m: m.at["**"].cast(jnp.bfloat16))(model)
    assert half.encoder[0].scale.dtype == jnp.bfloat16 and half.table.dtype == jnp.int32
    taken = transform(lambda m: doubled.at[select.state].take(m))(model)
    assert taken.encoder[1].mean == 1 and taken.encoder[1].scale.tolist() == [2, 2]


def test_abstract_models_are_changed_too():
    model = jax.eval_shape(net)
    assert model.at["head.kernel"].apply(lambda x: x.sum(0)).head["kernel"].shape == (2,)
    assert model.at["head"].cast("float16").head["kernel"].dtype == jnp.float16
    taken = model.at["head.kernel"].take(net())
    assert isinstance(taken.head["kernel"], jax.Array)
    assert isinstance(net().at["table"].take(model).table, jax.ShapeDtypeStruct)
    assert select.state.count(model) == 4


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (
            "head.kernel",
            jnp.ones(3),
            r"`head\['kernel'\]` was given shape \(3,\), but it has shape \(2",
        ),
        ("table", 1.5, r"`table` was given dtype float32, but it has dtype int32"),
        (
            "head.kernel",
            {"head": 1.0},
            r"missing \[\"head\['kernel'\]\"\], not selected \['head'\]",
        ),
    ],
)
def test_set_keeps_shape_and_dtype(path, value, text):
    with pytest.raises(ValueError, match=text):
        net().at[path].set(value)


X = jnp.ones(2)
NO_ARRAYS = ["hello", None, object(), [1.0, [2.0]], {"table": "hello"}, Norm(X, X), [2**70, 0]]


@pytest.mark.parametrize("value", NO_ARRAYS, ids=lambda value: type(value).__name__)
def test_set_of_what_is_no_array_says_where_and_what_fits(value):
    with pytest.raises(TypeError, match=r"^`table` is int32\[2\], and was given .* Give a number"):
        net().at["table"].set(value)


def test_set_takes_a_list_of_numbers_and_cast_leaves_static_values_alone():
    assert net().at["table"].set([3, 4]).table.tolist() == [3, 4]
    half = net().at[select.static | "encoder[0]"].cast(jnp.float16)
    assert half.encoder[0].momentum == 0.9 and half.encoder[0].scale.dtype == jnp.float16


def test_take_needs_the_same_paths_and_shapes():
    params, _ = ox.partition(net(), "encoder")
    with pytest.raises(TypeError, match=r"`head\['kernel'\]` is float32\[2,2\], .* given None\. "):
        net().at["head.kernel"].take(params)
    other = jax.eval_shape(net).at["head.kernel"].apply(lambda x: x[0])
    with pytest.raises(
        ValueError, match=r"`head\['kernel'\]` is float32\[2,2\], and was given flo"
    ):
        net().at["head.kernel"].take(other)
    with pytest.raises(ValueError, match=r"found no such paths in the other tree: table\."):
        net().at["table"].take(net().encoder[0])
    with pytest.raises(TypeError, match="`cast` takes a floating-point dtype, got 'int32'"):
        net().at["table"].cast("int32")


def test_params_of_a_live_module_are_changed_inside_a_call():
    class Scaled(ox.Module):
        norm: Norm

        def call(self, x):
            return self.norm.at["scale"].apply(lambda s: 10 * s)(x)

    y, new = Scaled(Norm(jnp.ones(2), jnp.zeros(()))).call_and_update(jnp.ones(2))
    assert y.tolist() == [10, 10] and new.norm.mean == 1 and new.norm.scale.tolist() == [1, 1]


def test_labels_name_every_leaf_once():
    label = select.labels("rest", frozen="encoder[0]", head=select.path("head") - Norm)
    labels = label(net())
    assert labels.encoder[0].scale == "frozen" and labels.head["kernel"] == "head"
    assert labels.head["a b"].mean == labels.table == "rest"
    with pytest.raises(ValueError, match=r"`encoder\[0\].scale` gets two labels, 'a' and 'b'"):
        select.labels("x", a="encoder", b=Norm)(net())
    with pytest.raises(ValueError, match=r"9 leaves have no label, such as `encoder\[0\].scale`"):
        select.labels(a="table")(net())
    with pytest.raises(ValueError, match=r"Did you mean 'encoder'"):
        select.labels("x", a="encodr")(net())
