"""Every layer on meshes with explicit axes, the default of `jax.make_mesh`: types and numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nn.placed import BATCH, PLACED, RULES, inputs, step

import oryxstate as ox
from oryxstate import nn, sharding


def mesh_of(shape: tuple[int, ...], kind: AxisType = AxisType.Explicit) -> jax.sharding.Mesh:
    names = ("data", "other", "model") if len(shape) == 3 else ("data", "model")
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape), devices=devices)


def traced(name: str, shape: tuple[int, ...], rules=RULES, batch: int = BATCH):
    """The types of a step of training, and those of the model."""
    template, specs = PLACED[name]
    mesh, xs = mesh_of(shape), inputs(specs, batch)
    model = jax.eval_shape(ox.init(template), jax.random.key(0), *(x[0] for x in xs))
    placed = sharding.abstract(model, mesh, rules)
    split = NamedSharding(mesh, PartitionSpec("data"))
    xs = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split) for x in xs]
    with jax.set_mesh(mesh):
        return placed, jax.jit(step).eval_shape(placed, *xs)


def types(tree) -> dict:
    found = {}
    for path, leaf in ox.named_leaves(tree).items():
        spec = [*leaf.sharding.spec, *[None] * leaf.ndim][: leaf.ndim]
        found[path] = leaf.shape, leaf.dtype, tuple(spec)
    return found


@pytest.mark.parametrize("name", PLACED)
def test_gradients_and_state_are_placed_as_the_model(name):
    model, (_, grads, y, state) = traced(name, (2, 2))
    params, rest = ox.partition(model)
    assert types(grads) == types(params)
    assert types(state) == types(rest)
    assert all(leaf.sharding.spec[0] == "data" for leaf in jax.tree.leaves(y))


BLOCKS = "Block", "Repeat", "MHA grouped", "Embedding", "Conv2"


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 1, 2)], ids=str)
def test_other_meshes(name, shape):
    model, (_, grads, _, _) = traced(name, shape)
    assert types(grads) == types(ox.partition(model)[0])


@pytest.mark.parametrize("name", ["MHA", "GroupNorm", "Conv no bias"])
def test_a_batch_of_one_example(name):
    model, (_, grads, y, _) = traced(name, (1, 2), batch=1)
    assert types(grads) == types(ox.partition(model)[0])
    assert all(leaf.sharding.spec[0] == "data" for leaf in jax.tree.leaves(y))


def test_masks_of_a_batch_of_one_example():
    mesh = mesh_of((1, 2))
    attention = ox.init(nn.MultiHeadAttention.of(4))(jax.random.key(0), jnp.ones((6, 8)))
    placed = jax.device_put(attention, ox.shardings(attention, mesh, RULES))
    x, mask = jax.random.normal(jax.random.key(1), (1, 6, 8)), jnp.tri(6, dtype=bool)[None]
    split = NamedSharding(mesh, PartitionSpec("data"))

    def call(attention, xs, masks):
        return jax.vmap(lambda x, mask: attention(x, mask=mask))(xs, masks)

    with jax.set_mesh(mesh):
        y = jax.jit(call)(placed, jax.device_put(x, split), jax.device_put(mask, split))
    assert y.sharding.spec[0] == "data"
    np.testing.assert_allclose(y, call(attention, x, mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "template",
    [nn.RMSNorm.of((-2, -1)), nn.LayerNorm.of((-2, -1)), nn.RNN.of(nn.GRUCell.of(8))],
    ids=repr,
)
@pytest.mark.parametrize("axis", ["data", "model"])
def test_one_example_with_sharded_features(template, axis):
    mesh, x = mesh_of((2, 2)), jnp.ones((8, 8))
    model = jax.eval_shape(ox.init(template), jax.random.key(0), x)
    placed = sharding.abstract(model, mesh, RULES)
    split = NamedSharding(mesh, PartitionSpec(None, axis))
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(lambda model, x: model(x).sum(), allow_int=True))
        grads = gradient.eval_shape(placed, jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split))
    params = ox.partition(placed)[0]
    assert types(ox.partition(grads)[0]) == types(params)


MODELS = {
    "language": (
        nn.Embedding.of(16, 8)
        >> nn.Repeat.of(
            nn.TransformerBlock.of(
                nn.MultiHeadAttention.of(4, kv_heads=2, causal=True),
                nn.MLP.of((16, 8)),
                dropout=0.1,
            ),
            2,
        )
        >> nn.Dense.of(16, axes=("embed", "vocab")),
        (ox.ArraySpec(8, "int32"),),
    ),
    "vision": (
        nn.Conv.of(8, 3)
        >> nn.BatchNorm.of()
        >> jax.nn.relu
        >> nn.Flatten.of()
        >> nn.MLP.of((8, 4)),
        (ox.ArraySpec((6, 4)),),
    ),
    "grouped": (
        nn.SeparableConv.of(8, 3, strides=2, padding="SAME")
        >> nn.Conv.of(8, 2, groups=4, dilation=2, padding=1)
        >> nn.ConvTranspose.of(8, 3, groups=2, strides=2, padding="SAME"),
        (ox.ArraySpec((7, 4)),),
    ),
}
CASES = [
    ("language", AxisType.Explicit),
    ("vision", AxisType.Explicit),
    ("vision", AxisType.Auto),
    ("grouped", AxisType.Explicit),
    ("grouped", AxisType.Auto),
]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=str)
def test_a_step_equals_that_of_one_device(name, kind):
    template, specs = MODELS[name]
    xs, mesh = inputs(specs), mesh_of((2, 2), kind)
    model = ox.init(template)(jax.random.key(0), *(x[0] for x in xs))
    want = jax.jit(step)(model, *xs)
    with jax.set_mesh(mesh):
        placed = jax.device_put(model, ox.shardings(model, mesh, RULES))
        batch = jax.device_put(xs, NamedSharding(mesh, PartitionSpec("data")))
        got = jax.jit(step)(placed, *batch)
    for (path, x), y in zip(ox.named_leaves(got).items(), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5, err_msg=path)


def test_the_cache_of_a_decoder_is_placed_too():
    mesh = mesh_of((2, 2))
    attention = nn.MultiHeadAttention.of(2, causal=True)
    model = ox.init(nn.CachedAttention.of(attention, max_length=8))(
        jax.random.key(0), jnp.ones((2, 8))
    )
    streams, xs = ox.per_example(model, 4), jnp.ones((4, 2, 8))
    placed = sharding.abstract(streams, mesh, RULES)
    assert tuple(placed.model.keys.sharding.spec) == ("data", None, "model")
    x = jax.ShapeDtypeStruct(
        xs.shape, xs.dtype, sharding=NamedSharding(mesh, PartitionSpec("data"))
    )
    with jax.set_mesh(mesh):
        y, new = jax.jit(ox.call_and_update).eval_shape(placed, x)
    assert types(new) == types(placed) and y.sharding.spec[0] == "data"
