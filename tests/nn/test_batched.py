"""Layers with a batched rule, which see all examples and nothing else (S14)."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both, close
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
XS = jax.random.normal(KEY, (6, 3)) * 2 + 1
NORM = nn.BatchNorm(
    scale=jnp.array([1.0, 2.0, -1.0]),
    bias=jnp.array([0.0, 1.0, 0.5]),
    mean=jnp.zeros(3),
    variance=jnp.ones(3),
    momentum=0.75,
)


def hand(xs, scale=NORM.scale, mean=NORM.mean, variance=NORM.variance):
    """The outputs of a batch, and the running statistics after it."""
    mu, var = xs.mean(0, keepdims=True), xs.var(0, keepdims=True)
    ys = (xs - mu) / jnp.sqrt(var + 1e-5) * scale[None] + NORM.bias[None]
    return ys, (0.75 * mean + 0.25 * mu[0], 0.75 * variance + 0.25 * var[0])


def train(norm, x):
    return norm.call_and_update(x, training=True)


def agree(ys, new, xs=XS):
    want, (mean, variance) = hand(xs)
    np.testing.assert_allclose(ys, want, atol=2e-5)
    np.testing.assert_allclose(new.mean, mean, atol=1e-6)
    np.testing.assert_allclose(new.variance, variance, atol=1e-5)
    close((new.scale, new.bias), (NORM.scale, NORM.bias))


OVER = partial(jax.vmap, in_axes=(None, 0), out_axes=(0, None))


class Net(ox.Module):
    """Maps a layer in its call."""

    norm: nn.BatchNorm
    run: object = ox.static()

    def call(self, xs):
        return self.run(self.norm, xs)


MAPPED_ROOTS = {
    "vmap": OVER(train),
    "jit in vmap": OVER(jax.jit(train)),
    "vmap in jit": jax.jit(OVER(train)),
    "checkpoint in vmap": OVER(jax.checkpoint(train)),
    "vmap with a name": OVER(train, axis_name="i"),
}


@pytest.mark.parametrize("way", MAPPED_ROOTS)
def test_mapped_root(way):
    agree(*MAPPED_ROOTS[way](NORM, XS))


def test_any_axis_and_nested():
    y, new = jax.vmap(train, (None, 1), (1, None))(NORM, XS.T)
    agree(y.T, new)
    for axis in (0, 1):
        over = partial(jax.vmap, in_axes=(None, axis), out_axes=(axis, None))
        y, new = over(OVER(train))(NORM, XS.reshape(2, 3, 3))
        order = XS.reshape(2, 3, 3).swapaxes(0, axis).reshape(6, 3)
        agree(jnp.asarray(y).swapaxes(0, axis).reshape(6, 3), new, order)


INSIDE = {
    "vmap": lambda norm, xs: jax.vmap(norm)(xs),
    "vmap, closed over": lambda norm, xs: jax.vmap(lambda x: norm(x))(xs),
    "vmap of an argument": lambda norm, xs: jax.vmap(lambda n, x: n(x), (None, 0))(norm, xs),
    "jit": lambda norm, xs: jax.jit(jax.vmap(norm))(xs),
    "jit in vmap": lambda norm, xs: jax.vmap(jax.jit(lambda x: norm(x)))(xs),
    "checkpoint": lambda norm, xs: jax.checkpoint(lambda xs: jax.vmap(norm)(xs))(xs),
    "checkpoint in vmap": lambda norm, xs: jax.vmap(jax.checkpoint(lambda x: norm(x)))(xs),
    "one scan": lambda norm, xs: lax.scan(lambda c, xs: (c, jax.vmap(norm)(xs)), 0, xs[None])[1][0],
    "one scan in vmap": lambda norm, xs: jax.vmap(
        lambda x: lax.scan(lambda c, x: (c, norm(x)), 0, x[None])[1][0]
    )(xs),
    "cond": lambda norm, xs: lax.cond(xs.sum() < 99, jax.vmap(norm), lambda xs: xs, xs),
}


@pytest.mark.parametrize("way", INSIDE)
def test_mapped_inside_a_call(way):
    net = Net(NORM, INSIDE[way])
    for run in both(partial(ox.call_and_update, training=True)):
        ys, new = run(net, XS)
        agree(ys, new.norm)


@pytest.mark.parametrize("way", INSIDE)
def test_gradient_of_a_mapped_call(way):
    """Through the statistics of the batch."""

    def loss(scale, xs):
        net = Net(NORM.replace(scale=scale), INSIDE[way])
        return (net(xs, training=True) ** 3).sum()

    want = jax.grad(lambda scale, xs: (hand(xs, scale)[0] ** 3).sum(), (0, 1))(NORM.scale, XS)
    for run in both(jax.grad(loss, (0, 1))):
        for got, expected in zip(run(NORM.scale, XS), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


def test_forward_derivative_of_a_mapped_call():
    net = Net(NORM, INSIDE["vmap"])
    got = jax.jvp(lambda xs: net(xs, training=True), (XS,), (jnp.cos(XS),))
    want = jax.jvp(lambda xs: hand(xs)[0], (XS,), (jnp.cos(XS),))
    for mine, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-4)


def test_two_batches_in_a_scan_update_twice():
    net = Net(NORM, lambda norm, xs: lax.scan(lambda c, xs: (c, jax.vmap(norm)(xs)), 0, xs)[1])
    for run in both(partial(ox.call_and_update, training=True)):
        ys, new = run(net, jnp.stack([XS, 2 * XS]))
        first, (mean, variance) = hand(XS)
        second, (mean, variance) = hand(2 * XS, mean=mean, variance=variance)
        np.testing.assert_allclose(ys, jnp.stack([first, second]), atol=5e-5)
        np.testing.assert_allclose(new.norm.mean, mean, atol=1e-6)
        np.testing.assert_allclose(new.norm.variance, variance, rtol=1e-5)


def test_without_training_nothing_is_updated():
    norm = NORM.replace(mean=jnp.ones(3), variance=jnp.full(3, 4.0))
    want = (XS - 1) / np.sqrt(4 + 1e-5) * NORM.scale[None] + NORM.bias[None]
    for call in both(lambda norm, x: norm.call_and_update(x, training=False)):
        for ys, new in (OVER(call)(norm, XS), call(norm, XS)):
            np.testing.assert_allclose(ys, want, atol=1e-5)
            close(new, norm)


def test_a_mapped_layer_has_statistics_of_its_own():
    """Whether its examples are mapped inside of its members or outside."""
    members = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), NORM)
    inner = jax.vmap(OVER(train), (0, None))
    outer = jax.vmap(jax.vmap(train, (0, None)), (None, 0), (1, None))
    for ys, new in (inner(members, XS), outer(members, XS)):
        for i in range(2):
            norm = jax.tree.map(lambda x, i=i: x[i], members)
            want, expected = OVER(train)(norm, XS)
            np.testing.assert_allclose(ys[i], want, atol=1e-5)
            np.testing.assert_allclose(new.mean[i], expected.mean, atol=1e-6)
            np.testing.assert_allclose(new.variance[i], expected.variance, atol=1e-5)


def test_members_with_examples_of_their_own():
    members = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), NORM)
    batches = jnp.stack([XS, 3 * XS + 1])
    inner = jax.vmap(OVER(train))
    outer = jax.vmap(jax.vmap(train), (None, 1), (1, None))
    for run in (*both(inner), *both(outer)):
        ys, new = run(members, batches)
        for i in range(2):
            norm = jax.tree.map(lambda x, i=i: x[i], members)
            want, expected = OVER(train)(norm, batches[i])
            np.testing.assert_allclose(ys[i], want, atol=2e-5)
            np.testing.assert_allclose(new.mean[i], expected.mean, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_across_devices(devices):
    mesh, split = Mesh(np.array(jax.devices()[:devices]), ("d",)), PartitionSpec("d")
    whole, norm = PartitionSpec(), NORM.replace(axis_name=("d",))
    run = jax.shard_map(OVER(train), mesh=mesh, in_specs=(whole, split), out_specs=(split, whole))
    for call in (run, jax.jit(run)):
        agree(*call(norm, XS))
    net = Net(norm, lambda norm, xs: jax.shard_map(
        jax.vmap(norm), mesh=mesh, in_specs=split, out_specs=split)(xs))  # fmt: skip
    ys, new = net.call_and_update(XS, training=True)
    agree(ys, new.norm)


def test_across_devices_without_a_name_is_refused():
    """The statistics differ, and there is one state."""
    mesh, split = Mesh(np.array(jax.devices()[:2]), ("d",)), PartitionSpec("d")
    net = Net(NORM, lambda norm, xs: jax.shard_map(
        jax.vmap(norm), mesh=mesh, in_specs=split, out_specs=split)(xs))  # fmt: skip
    with pytest.raises(ox.EffectError, match=r"'norm\.mean'.*mesh axis 'd'.*pmean"):
        net(XS, training=True)


def test_a_named_axis_of_another_vmap():
    """Statistics over two axes, of which each example maps one."""
    norm = NORM.replace(axis_name=("i",))
    over = partial(jax.vmap, in_axes=(None, 0), out_axes=(0, None))
    for run in both(over(over(train), axis_name="i")):
        ys, new = run(norm, XS.reshape(2, 3, 3))
        agree(ys.reshape(6, 3), new)


@pytest.mark.parametrize("way", MAPPED_ROOTS)
def test_nothing_is_kept(way):
    """Neither arrays nor tracers, in what JAX caches of the rule."""
    with jax.checking_leaks():
        MAPPED_ROOTS[way](NORM, XS)
    norm, xs = jax.tree.map(jnp.copy, NORM), jnp.copy(XS)
    kept = [weakref.ref(leaf) for leaf in (xs, *jax.tree.leaves(norm))]
    MAPPED_ROOTS[way](norm, xs)
    del norm, xs
    gc.collect()
    assert [ref() for ref in kept if ref() is not None] == []


def test_large_mean_and_small_variance():
    """Two passes: the mean of squares would have no digit left."""
    xs = 1e4 + jnp.array([[0.0], [1.0], [2.0], [3.0]])
    norm = ox.init(nn.BatchNorm.of(momentum=0.0))(KEY, xs[0])
    _, new = OVER(train)(norm, xs)
    np.testing.assert_allclose(new.variance, [1.25], rtol=1e-5)


ALONE = {
    "directly": lambda x: train(NORM, x),
    "jit": lambda x: jax.jit(train)(NORM, x),
    "grad": lambda x: jax.grad(lambda x: train(NORM, x)[0].sum())(x),
    "grad in vmap": lambda x: jax.vmap(jax.grad(lambda x: train(NORM, x)[0].sum()))(XS),
    "vmap of something else": lambda x: jax.vmap(lambda _: train(NORM, x)[0])(XS),
    "of a larger model": lambda x: Net(NORM, lambda norm, x: norm(x))(x, training=True),
}


@pytest.mark.parametrize("way", ALONE)
def test_one_example_alone_is_refused(way):
    text = "is training on one example alone, which has no statistics. Call the model on the batch"
    with pytest.raises(ox.EffectError) as error:
        ALONE[way](XS[0])
    assert text in str(error.value) and "jax.grad" in str(error.value)
    assert ("at 'norm'" in str(error.value)) is (way == "of a larger model")
    agree(*OVER(train)(NORM, XS))


class Centered(nn.Layer):
    """A rule of an author: subtracts the mean of the batch and remembers the first example."""

    first: jax.Array = ox.state()
    calls: jax.Array = ox.state()

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams(
            state={"first": jnp.zeros(in_spec.shape), "calls": jnp.zeros((), jnp.int32)}
        )

    def call(self, x, shift=0.0):
        return x + shift

    def call_batched(self, xs, shift=0.0):
        self.assign(first=xs[0], calls=self.calls + 1)
        return xs - xs.mean(0, keepdims=True) + jnp.reshape(shift, (-1, 1))


def test_a_rule_of_an_author():
    layer = ox.init(Centered.of())(KEY, XS[0])
    for run in both(OVER(ox.call_and_update)):
        ys, new = run(layer, XS)
        want = XS - XS.mean(0, keepdims=True)
        close((ys, new.first, new.calls), (want, XS[0], jnp.int32(1)))
    y, new = layer.call_and_update(XS[0])
    close((y, new), (XS[0], layer))


def test_an_argument_that_is_not_mapped_belongs_to_each_example():
    layer = ox.init(Centered.of())(KEY, XS[0])
    over = partial(jax.vmap, out_axes=(0, None))
    shifts = jnp.arange(6.0)
    want = XS - XS.mean(0, keepdims=True)
    for axes, shift, add in (((None, 0, None), 2.0, 2.0), ((None, 0, 0), shifts, shifts[:, None])):
        ys, _ = over(ox.call_and_update, axes)(layer, XS, shift)
        np.testing.assert_allclose(ys, want + add, atol=1e-6)
    nested = over(over(ox.call_and_update, (None, 0, None)), (None, 0, 0))
    ys, _ = nested(layer, XS.reshape(2, 3, 3), jnp.array([1.0, 5.0]))
    np.testing.assert_allclose(
        ys.reshape(6, 3), want + np.repeat(np.float32([1, 5]), 3)[:, None], atol=1e-6
    )


def test_a_call_written_anew_is_not_overruled_by_an_inherited_rule():
    with pytest.raises(TypeError, match=r"Tripled defines `call`, but inherits `call_batched` of"):

        class Tripled(nn.BatchNorm):
            def call(self, x, *, training):
                return 3 * x

    class Alone(nn.BatchNorm):
        call_batched = None

        def call(self, x, *, training):
            return 3 * x

    norm = Alone(jnp.ones(3), jnp.zeros(3), jnp.zeros(3), jnp.ones(3))
    np.testing.assert_allclose(ox.batch_call(norm, jnp.ones((2, 3)), training=True), 3.0)
