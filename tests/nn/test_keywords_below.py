"""Keywords reach what stands below a layer that sees the whole batch, and functions in chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
XS = jnp.arange(1.0, 4.0)
WAYS = pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["eager", "jitted"])


class Mode(ox.Module):
    def call(self, x, *, training, scale=1.0):
        return x * scale * (2.0 if training else 1.0)


class Noise(ox.Module):
    def call(self, x, *, rng):
        return x + jax.random.normal(rng)


class Batched(nn.Layer):
    """Subtracts the mean of what is inside; counts the batches that it trains on."""

    inner: object
    count: jax.Array = ox.state(default_factory=lambda: jnp.int32(0))

    @classmethod
    def initialize(cls, init_key, in_spec):
        raise NotImplementedError

    def call(self, x):
        return self.inner(x)

    def call_batched(self, xs):
        self.assign(count=self.count + 1)
        ys = self.inner(xs)
        return ys - ys.mean()


class Net(ox.Module):
    layer: Batched
    steps: int = ox.static(default=1)

    def call(self, x):
        return lax.scan(lambda h, _: (self.layer(h), None), x, None, length=self.steps)[0]


def centered(xs, factor):
    return factor * (xs - xs.mean())


@WAYS
@pytest.mark.parametrize("training", [False, True])
def test_static_keywords(training, way):
    net = Net(Batched(Mode()))

    def run(net, xs):
        return ox.batch_call_and_update(net, xs, training=training)

    for _ in range(2):
        ys, new = way(run)(net, XS)
        np.testing.assert_allclose(ys, centered(XS, 1 + training), rtol=1e-6)
        assert new.layer.count == 1


@WAYS
def test_arrays_may_change_without_another_trace(way):
    traced = []

    def run(net, xs, scale):
        traced.append(None)
        return ox.batch_call(net, xs, training=True, scale=scale)

    run = way(run)
    for scale in (1.0, 3.0):
        ys = run(Net(Batched(Mode())), XS, jnp.float32(scale))
        np.testing.assert_allclose(ys, centered(XS, 2 * scale), rtol=1e-6)
    assert len(traced) == (1 if way is jax.jit else 2)


def test_the_derivative_by_a_keyword():
    def loss(scale):
        return (ox.batch_call(Net(Batched(Mode())), XS, training=False, scale=scale) ** 2).sum()

    want = jax.grad(lambda scale: (centered(XS, scale) ** 2).sum())(2.0)
    np.testing.assert_allclose(jax.grad(loss)(2.0), want, rtol=1e-6)


@WAYS
def test_each_call_has_a_key_of_its_own(way):
    def run(net, key):
        return ox.batch_call_and_update(net, 0 * XS, rng=key)

    class Kept(Batched):
        last: jax.Array = ox.state(default_factory=lambda: jnp.zeros(2))

        def call_batched(self, xs):
            noise = self.inner(jnp.zeros(()))
            self.assign(last=jnp.stack([self.last[1], noise]))
            return xs

    _, new = way(run)(Net(Kept(Noise()), steps=2), KEY)
    _, again = way(run)(Net(Kept(Noise()), steps=2), KEY)
    _, other = way(run)(Net(Kept(Noise()), steps=2), jax.random.key(1))
    first, second = new.layer.last
    assert first != second
    np.testing.assert_array_equal(new.layer.last, again.layer.last)
    assert not set(np.array(new.layer.last)) & set(np.array(other.layer.last))


def test_what_is_given_nowhere():
    with pytest.raises(TypeError, match=r"Mode at 'layer.inner' needs `training`"):
        ox.batch_call(Net(Batched(Mode())), XS)


# Functions ----------------------------------------------------------------------------------------


def doubled(x, *, training):
    return x * (2.0 if training else 1.0)


def noisy(x, *, rng=None):
    return x if rng is None else x + jax.random.normal(rng, x.shape)


def counted(x, *, training):
    n = ox.variable(0.0, name="n")
    ox.assign(n + float(training), name="n")
    return x


@WAYS
@pytest.mark.parametrize("place", ["function", "lambda", "list", "residual"])
def test_keywords_of_functions(place, way):
    parts = {
        "function": doubled,
        "lambda": nn.Lambda.of(doubled),
        "list": [doubled],
        "residual": nn.Residual.of(doubled),
    }
    template = nn.Serial.of(parts[place], doubled)
    model = ox.init(template)(KEY, XS)
    assert ox.keywords(model) == {"training": True}
    one = 3 if place == "residual" else 2
    for training, factor in ((True, 2 * one), (False, one - 1)):
        y = way(lambda m, x, t=training: ox.call(m, x, training=t))(model, XS)
        np.testing.assert_allclose(y, factor * XS)
    assert ox.spec(model)(ox.ArraySpec(3)) == ox.ArraySpec(3)
    with pytest.raises(TypeError, match="needs `training`"):
        ox.call(model, XS)


def test_functions_get_keys_of_their_own():
    model = ox.init(nn.Serial.of(noisy, noisy))(KEY, XS)
    assert ox.keywords(model) == {"rng": False}
    np.testing.assert_array_equal(ox.call(model, XS), XS)
    one = ox.call(ox.init(nn.Serial.of(noisy))(KEY, XS), XS, rng=KEY) - XS
    two = ox.call(model, XS, rng=KEY) - XS
    assert not np.allclose(two, 2 * one, atol=1e-3)
    mapped = ox.batch_call(model, jnp.zeros((2, 3)), rng=KEY)
    assert not np.allclose(mapped[0], mapped[1], atol=1e-3)


@WAYS
def test_layers_in_a_list_in_a_chain(way):
    """At init too, where a list was asked for a keyword that nobody could give."""
    template = nn.Serial.of([nn.Dropout.of(0.5), nn.BatchNorm.of()], jnp.tanh)
    model, xs = ox.init(template)(KEY, XS), jax.random.normal(KEY, (4, 3))
    assert ox.keywords(model) == {"rng": False, "training": True}

    def run(model, xs, key):
        return ox.batch_call_and_update(model, xs, training=True, rng=key)

    ys, new = way(run)(model, xs, KEY)
    zs, _ = way(run)(model, xs, jax.random.key(1))
    assert not np.allclose(ys, zs, atol=1e-3)
    assert np.abs(jnp.arctanh(ys).mean(0)).max() < 1e-5
    changed = [
        not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, (model, new)), strict=True)
    ]
    assert sum(changed) == 2  # the statistics


def test_a_function_with_variables_that_needs_a_keyword():
    model = ox.init(nn.Dense.of(2) >> counted)(KEY, XS)
    new = ox.update(model, XS, training=True)
    assert (model.layers[1].n, new.layers[1].n) == (0.0, 1.0)


FUNCTIONS = {
    "custom_jvp": jax.nn.relu,
    "jitted": jnp.sqrt,
    "built in": abs,
    "mapped": jax.vmap(jnp.negative),
    "with a keyword": doubled,
}


@WAYS
@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_call_of_a_lambda_takes_training_and_a_key(f, way):
    y = way(lambda m, x: ox.call(m, x, training=True, rng=KEY))(nn.Lambda(f), XS)
    np.testing.assert_allclose(y, doubled(XS, training=True) if f is doubled else f(XS))
