"""Placement by logical names: rules, stacked modules, optimizers, the report, and init in place."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import oryxstate as ox
from oryxstate import nn, sharding
from oryxstate.sharding import _make

MESH = AbstractMesh((4, 2), ("data", "model"))
BOTH = {**sharding.FSDP, **sharding.TENSOR_PARALLEL}
KEY = jax.random.key(0)


def shapes(template, *specs):
    xs = [jax.ShapeDtypeStruct(s, "float32") for s in specs]
    return jax.eval_shape(ox.init(template), KEY, *xs)


def specs(tree, rules, mesh=MESH):
    placed = ox.shardings(tree, mesh, rules)
    return {path: tuple(s.spec) for path, s in ox.named_leaves(placed).items()}


def test_names_lead_to_mesh_axes():
    model = shapes(nn.MLP.of((32, 8)), (8,))
    assert specs(model, sharding.DATA_PARALLEL) == dict.fromkeys(ox.named_leaves(model), ())
    assert specs(model, sharding.TENSOR_PARALLEL) == {
        "layers[0].kernel": (None, "model"),
        "layers[0].bias": ("model",),
        "layers[1].kernel": ("model",),
        "layers[1].bias": (),
    }
    assert specs(model, BOTH)["layers[1].kernel"] == ("model", "data")
    assert specs(model, {"mlp": ("data", "model")})["layers[0].bias"] == (("data", "model"),)
    assert specs(model, {**BOTH, "mlp": None, ...: None})["layers[0].kernel"] == ()


def test_rules_apply_in_their_order_and_use_a_mesh_axis_once():
    model = shapes(nn.Dense.of(8), (8,))
    assert specs(model, {"embed": "data", "mlp": "data"})["kernel"] == ("data",)
    assert specs(model, {"mlp": "data", "embed": "data"})["kernel"] == (None, "data")


def test_the_rest_is_the_largest_axis_that_divides():
    class Table(ox.Module):
        plain: jax.Array
        odd: jax.Array
        vector: jax.Array

    table = Table(jnp.ones((8, 16)), jnp.ones((3, 5)), jnp.ones(16))
    found = {"plain": (None, "data"), "odd": (), "vector": ()}
    assert specs(table, sharding.FSDP) == found


def test_stacked_modules_have_an_axis_of_their_own():
    dense = nn.Dense.of(8)
    deep = shapes(nn.Repeat.of(dense, 4), (8,))
    assert specs(deep, {"layers": "data"})["layers.kernel"] == ("data",)
    assert specs(deep, sharding.FSDP)["layers.bias"] == ()
    assert specs(deep, sharding.FSDP)["layers.kernel"] == (None, "data")
    members = jax.eval_shape(
        jax.vmap(lambda k: ox.init(nn.Repeat.of(dense, 3))(k, jnp.ones(8))),
        jax.random.split(KEY, 4),
    )
    rules = {"stack": "data", "mlp": "model"}
    assert specs(members, rules)["layers.kernel"] == ("data", None, None, "model")
    stream = ox.per_example(nn.GRUCell.of(8).init(KEY, jnp.ones(8)), 4)
    assert specs(stream, sharding.DATA_PARALLEL)["model.carry"] == ("data",)
    assert specs(stream, sharding.DATA_PARALLEL)["model.kernel"] == ()


def test_optimizers_averages_and_adapters_are_placed_as_the_model():
    model = shapes(nn.EMA.of(nn.Repeat.of(nn.MLP.of((32, 8)), 2)), (8,))
    params = ox.partition(model)[0]
    found = specs((model, jax.eval_shape(optax.adamw(1e-3).init, params)), BOTH)
    for path, spec in specs(params, BOTH).items():
        assert found[f"[0].shadow['{path.removeprefix('layer.')}']"] == spec
        assert found[f"[1][0].mu.{path}"] == found[f"[1][0].nu.{path}"] == spec
    factored = jax.eval_shape(optax.adafactor(1e-3, min_dim_size_to_factor=4).init, params)
    assert all(len(spec) <= 3 for spec in specs(factored, BOTH).values())
    adapted = shapes(nn.LoRA.of(nn.Dense.of(8, axes=("mlp", "embed")), 2), (32,))
    assert specs(adapted, sharding.TENSOR_PARALLEL) == {
        "kernel": ("model",),
        "bias": (),
        "down": ("model",),
        "up": (),
    }


def test_fields_of_ones_own_have_names_too():
    class Bank(ox.Module):
        tables: dict = ox.state(axes=lambda bank: {"wide": ("mlp", None)})
        any_rank: jax.Array = ox.param(axes=(..., "mlp"))

    bank = Bank({"wide": jnp.ones((8, 3)), "other": jnp.ones(8)}, jnp.ones((2, 2, 8)))
    assert specs(bank, {"mlp": "model"}) == {
        "tables['other']": (),
        "tables['wide']": ("model",),
        "any_rank": (None, None, "model"),
    }
    for wrong in ("embed", 3, {"wide": ("mlp",)}, ("mlp", 3), (..., "mlp", ...)):
        message = rf"^param\(axes={re.escape(repr(wrong))}\): `axes` has one name for each"
        with pytest.raises(TypeError, match=message):
            ox.param(axes=wrong)
    with pytest.raises(
        ValueError, match=r"Dense: `axes` is a tuple of 2 names or None.*got \('a',"
    ):
        nn.Dense.of(8, axes=("a",))
    with pytest.raises(ValueError, match=r"Einsum: `axes` is a tuple of 3 names"):
        nn.Einsum.of("...d,dhk->...hk", (8, 2, 4), axes=("embed",))


def test_a_function_that_gives_no_names():
    class Wide(ox.Module):
        kernel: jax.Array = ox.param(axes=lambda wide: "mlp")

    message = (
        r"^the function that gives the axes of Wide\.kernel returns 'mlp': `axes` has one name"
    )
    with pytest.raises(TypeError, match=message):
        specs(Wide(jnp.ones(8)), {"mlp": "model"})


def test_a_rule_for_a_mesh_axis_that_is_not_there():
    model = shapes(nn.MLP.of((32, 8)), (8,))
    wrong = (
        r"axes 'mlp', such as that of `layers\[0\]\.kernel`, on the mesh axis 'tensor'.*'data': 4"
    )
    with pytest.raises(ValueError, match=wrong):
        ox.shardings(model, MESH, {"mlp": "tensor"})


def test_rules_that_name_no_mesh_axes():
    model = shapes(nn.Dense.of(8), (8,))
    with pytest.raises(TypeError, match=r"the rule for 'mlp' is a mesh axis, .* but got 3: write"):
        ox.shardings(model, MESH, {"mlp": 3})
    with pytest.raises(ValueError, match=r"rule for \.\.\. names a mesh axis twice: \('data', "):
        ox.shardings(model, MESH, {...: ("data", "data")})
    placed = ox.shardings(model, MESH, {"mlp": ["data"]})
    assert tuple(placed.bias.spec) == ("data",)


def test_an_axis_that_does_not_divide():
    model = shapes(nn.Dense.of(7), (8,))
    wrong = r"`kernel` of shape \(8, 7\) has 7 elements along axis 1, 'mlp', which 2 devices along "
    with pytest.raises(ValueError, match=wrong + "the mesh axis 'model' cannot share.*'mlp': None"):
        ox.shardings(model, MESH, sharding.TENSOR_PARALLEL)


def test_too_many_bytes_that_are_not_sharded():
    model = shapes(nn.MLP.of((32, 8)), (8,))
    ox.shardings(model, MESH, sharding.TENSOR_PARALLEL, max_unsharded=0.02)
    wrong = r"100\.0% of 2,208 bytes .* 8 devices, more than 2\.0%\. The largest: `layers\[0\]"
    with pytest.raises(ValueError, match=wrong):
        ox.shardings(model, MESH, sharding.DATA_PARALLEL, max_unsharded=0.02)
    alone = AbstractMesh((1,), ("data",))
    ox.shardings(model, alone, sharding.DATA_PARALLEL, max_unsharded=0.02)


def test_the_report_is_data():
    model = shapes(nn.MLP.of((32, 8)), (8,))
    report = sharding.report(model, MESH, BOTH)
    first = report.rows[0]
    assert (first.path, first.axes, first.shard) == ("layers[0].kernel", ("embed", "mlp"), (2, 16))
    assert (report.bytes, report.bytes_per_device, report.devices) == (2208, 352, 8)
    assert report.unsharded == 32 / 2208


def start(key):
    block = nn.Residual.of(nn.MLP.of((64, 16)))
    model = ox.init(nn.Dense.of(16) >> nn.Repeat.of(block, 4))(key, jnp.ones(8))
    return model, optax.adamw(1e-3).init(ox.partition(model)[0])


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=str)
def test_init_in_place(kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    made = sharding.make(start, mesh, BOTH, max_unsharded=0.2)(KEY)
    want = start(KEY)
    assert jax.tree.structure(made) == jax.tree.structure(want)
    placed = jax.tree.leaves(ox.shardings(want, mesh, BOTH))
    for (path, x), y, s in zip(
        ox.named_leaves(made).items(), jax.tree.leaves(want), placed, strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-6, err_msg=path)
        assert x.sharding == s
        assert {part.data.shape for part in x.addressable_shards} == {s.shard_shape(x.shape)}


def test_no_device_ever_holds_a_whole_array():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    block = nn.Residual.of(nn.MLP.of((256, 64)))

    def start(key):
        model = ox.init(nn.Repeat.of(block, 8))(key, jnp.ones(64))
        return model, optax.adamw(1e-3).init(ox.partition(model)[0])

    result = jax.eval_shape(start, KEY)
    wanted = jax.tree.leaves(ox.shardings(result, mesh, sharding.FSDP))
    run, arrays = _make.prepared(start, (KEY,), {}, wanted, mesh)
    compiled = run.lower(arrays).compile()
    share = sharding.report(result, mesh, sharding.FSDP).bytes_per_device
    assert compiled.memory_analysis().peak_memory_in_bytes <= 1.3 * share
    assert "f32[8,64,256]" not in compiled.as_text()
    assert "all-gather" not in compiled.as_text()


def test_arguments_and_results_that_are_not_arrays():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    made = sharding.make(ox.init(nn.Dense.of(4)), mesh, sharding.FSDP)
    assert made(KEY, ox.ArraySpec(8)).kernel.sharding.spec == PartitionSpec("data")
    act, x = sharding.make(lambda: (jax.nn.relu, jnp.ones((4, 2))), mesh, sharding.FSDP)()
    assert act is jax.nn.relu and x.sharding.spec == PartitionSpec("data")
    assert ox.shardings((act, x), mesh, sharding.FSDP)[0] is None


def test_a_checkpoint_is_restored_in_place_on_another_mesh(tmp_path):
    first = jax.make_mesh((4, 2), ("data", "model"))
    saved = sharding.make(start, first, BOTH)(KEY)
    ox.checkpoint.save(tmp_path / "one", saved)
    second = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    into = sharding.abstract(jax.eval_shape(start, KEY), second, sharding.FSDP)
    found = ox.checkpoint.restore(tmp_path / "one", into)
    for x, like, y in zip(*map(jax.tree.leaves, (found, into, saved)), strict=True):
        assert x.sharding == like.sharding
        np.testing.assert_array_equal(x, y)
    third = jax.make_mesh((3,), ("data",), devices=jax.devices()[:3])
    wrong = r"`\[0\].*kernel` .* 16 elements along axis 1, 'mlp', which 3 devices along .* 'data'"
    with pytest.raises(ValueError, match=wrong):
        sharding.abstract(jax.eval_shape(start, KEY), third, {"mlp": "data"})


def test_specs_to_restore_into_keep_weak_types():
    """Otherwise a compiled step is traced once more after the restore."""
    count = {"count": jnp.asarray(0)}
    assert sharding.abstract(count, MESH, sharding.FSDP)["count"].weak_type
    shapes = jax.eval_shape(lambda: count)
    assert sharding.abstract(shapes, MESH, sharding.FSDP)["count"].weak_type


def test_copies_that_differ_are_found():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    parts = [jax.device_put(jnp.full(2, i, "float32"), d) for i, d in enumerate(mesh.devices)]
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    good = jax.make_array_from_single_device_arrays((4,), split, parts)
    sharding.check_replicas({"a": good, "key": jax.device_put(KEY, whole), "n": 1})
    bad = jax.make_array_from_single_device_arrays((2,), whole, parts)
    with pytest.raises(ValueError, match=r"1 arrays differ .*`\['b'\]` on devices \[0\] and \[1\]"):
        sharding.check_replicas({"a": good, "b": bad})


COLLECTIVES = "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"


def collectives(loss, params, xs):
    text = jax.jit(jax.grad(loss)).lower(params, xs).compile().as_text()
    return {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in COLLECTIVES}


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=str)
@pytest.mark.parametrize("rules", [sharding.DATA_PARALLEL, sharding.FSDP], ids=["data", "fsdp"])
def test_training_has_the_collectives_of_a_program_by_hand(rules, kind):
    mesh = jax.make_mesh((4,), ("data",), (kind,), devices=jax.devices()[:4])
    model = ox.init(nn.MLP.of((16, 8), jnp.tanh))(KEY, jnp.ones(8))

    def gathered(kernel):
        explicit = kind == AxisType.Explicit
        return jax.sharding.reshard(kernel, PartitionSpec()) if explicit else kernel

    def by_hand(params, xs):
        (first, b1), (second, b2) = params
        h = jnp.tanh(xs @ gathered(first) + b1[None])
        return jnp.square(h @ gathered(second) + b2[None]).mean()

    def ours(model, xs):
        return jnp.square(ox.batch_call(model, xs)).mean()

    with jax.set_mesh(mesh):
        placed = jax.device_put(model, ox.shardings(model, mesh, rules))
        xs = jax.device_put(jnp.ones((8, 8)), NamedSharding(mesh, PartitionSpec("data")))
        arrays = [(dense.kernel, dense.bias) for dense in placed.layers]
        assert collectives(ours, placed, xs) == collectives(by_hand, arrays, xs)
