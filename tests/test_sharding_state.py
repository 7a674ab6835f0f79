"""State across devices: statistics of the global batch, random numbers, counters, divergence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import oryxstate as ox
from oryxstate import nn, sharding

KEY, BATCH = jax.random.key(0), 8
XS = jax.random.normal(jax.random.key(1), (BATCH, 8))
WHOLE, SPLIT = PartitionSpec(), PartitionSpec("data")


class Noisy(ox.Module):
    """Every kind of state and randomness at once."""

    body: nn.Layer
    rng: nn.Rng
    calls: jax.Array = ox.state(default_factory=lambda: jnp.array(0))
    total: jax.Array = ox.state(default_factory=lambda: jnp.zeros(8), reduce=jnp.sum)

    def call(self, x, *, training: bool):
        self.assign(calls=self.calls + 1, total=self.total + x)
        noise = jax.random.normal(self.rng(x), x.shape)
        return self.body(x + noise, training=training)


def made():
    norm = nn.BatchNorm.of(momentum=0.5)
    layers = nn.Dense.of(8) >> norm >> nn.Dropout.of(0.5) >> nn.GaussianNoise.of(0.1)
    return Noisy(ox.init(layers)(KEY, XS[0]), nn.Rng(jax.random.key(2)))


@jax.jit
def step(model, xs):
    return ox.batch_call_and_update(model, xs, training=True, rng=jax.random.key(3))


def mesh_of(devices, kind=AxisType.Explicit):
    return jax.make_mesh((devices,), ("data",), (kind,), devices=jax.devices()[:devices])


def assert_equal(got, want):
    for (path, x), y in zip(ox.named_leaves(got).items(), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = map(jax.random.key_data, (x, y))
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("devices", "kind"),
    [(2, AxisType.Auto), (2, AxisType.Explicit), (4, AxisType.Auto), (8, AxisType.Explicit)],
    ids=str,
)
def test_the_number_of_devices_changes_nothing(devices, kind):
    mesh, model = mesh_of(devices, kind), made()
    want = step(model, XS)
    with jax.set_mesh(mesh):
        placed = jax.device_put(model, ox.shardings(model, mesh, sharding.FSDP))
        got = step(placed, jax.device_put(XS, NamedSharding(mesh, SPLIT)))
    assert_equal(got, want)
    assert int(got[1].calls) == 1
    sharding.check_replicas(got[1])
    if kind == AxisType.Explicit:
        for x, y in zip(jax.tree.leaves(got[1]), jax.tree.leaves(placed), strict=True):
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def over_devices(run, mesh, out_specs):
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=out_specs))


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=str)
def test_statistics_of_all_devices_in_shard_map(kind):
    mesh = mesh_of(4, kind)
    model = ox.init(nn.Dense.of(4) >> nn.BatchNorm.of(axis_name="data"))(KEY, XS[0])
    alone = ox.init(nn.Dense.of(4) >> nn.BatchNorm.of())(KEY, XS[0])

    def run(model, xs):
        return ox.batch_call_and_update(model, xs, training=True)

    with jax.set_mesh(mesh):
        xs = jax.device_put(XS, NamedSharding(mesh, SPLIT))
        got = over_devices(run, mesh, (SPLIT, WHOLE))(model, xs)
    assert_equal(got, run(alone, XS))


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=str)
def test_a_write_that_differs_by_device_is_refused(kind):
    class Mean(ox.Module):
        mean: jax.Array = ox.state(default_factory=lambda: jnp.zeros(8))
        mesh: jax.sharding.Mesh = ox.static(default=None)
        reduced: bool = ox.static(default=False)

        def call(self, xs):
            def each(xs):
                mean = xs.mean(0)
                self.assign(mean=jax.lax.pmean(mean, "data") if self.reduced else mean)
                return xs - self.mean[None]

            return jax.shard_map(each, mesh=self.mesh, in_specs=SPLIT, out_specs=SPLIT)(xs)

    mesh = mesh_of(2, kind)
    with jax.set_mesh(mesh):
        xs = jax.device_put(XS, NamedSharding(mesh, SPLIT))
        _, new = jax.jit(ox.call_and_update)(Mean(mesh=mesh, reduced=True), xs)
        with pytest.raises(
            ox.EffectError, match=r"'mean' is written inside `jax.shard_map`.*'data'"
        ):
            jax.jit(ox.call_and_update)(Mean(mesh=mesh), xs)
    np.testing.assert_allclose(new.mean, XS.mean(0), rtol=1e-5, atol=1e-6)


def test_a_write_that_differs_unchecked_is_found_by_the_check_of_copies():
    mesh = mesh_of(2)
    model = ox.init(nn.BatchNorm.of())(KEY, XS[0])

    def run(model, xs):
        return ox.batch_call_and_update(model, xs, training=True)[1]

    run = jax.shard_map(run, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=WHOLE, check_vma=False)
    with jax.set_mesh(mesh):
        new = jax.jit(run)(model, jax.device_put(XS, NamedSharding(mesh, SPLIT)))
    with pytest.raises(
        ValueError, match=r"2 arrays differ between devices: `mean` on devices \[0\]"
    ):
        sharding.check_replicas(new)
