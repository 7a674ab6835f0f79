"""Root calls of other methods, and over a batch (S17)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
XS = jax.random.normal(KEY, (6, 4)) + 1


class Counter(ox.Module):
    count: jax.Array = ox.state()

    def call(self, x):
        self.assign(count=self.count + 1)
        return x


class Coder(ox.Module):
    """A module with two ways in."""

    counter: Any
    drop: Any
    seen: jax.Array = ox.state()

    def encode(self, x, scale=1.0, *, training=False, rng=None):
        self.assign(seen=self.seen + 1)
        noise = 0.0 if rng is None else jax.random.normal(rng)
        return scale * self.drop(self.counter(x)), training, noise

    def call(self, x, *, training):
        return self.encode(x)[0]


def coder():
    return Coder(Counter(jnp.int32(0)), nn.Dropout(0.5), jnp.int32(10))


def test_a_bound_method_is_a_root_call_of_the_whole_model():
    for run in both(lambda m, x: ox.call_and_update(m.encode, x, 2.0, training=True, rng=KEY)):
        (y, training, noise), new = run(coder(), XS[0])
        assert isinstance(new, Coder) and new.counter.count == 1 and new.seen == 11
        assert training and noise != 0 and set((y / XS[0]).round(3).tolist()) <= {0.0, 4.0}
    y, training, noise = ox.call(coder().encode, XS[0], scale=3.0, training=False)
    assert not training and noise == 0 and (y == 3 * XS[0]).all()
    assert ox.update(coder().encode, XS[0], training=False).seen == 11
    assert ox.spec(coder().encode)(XS[0])[0] == ox.ArraySpec((4,))


def test_the_call_as_a_bound_method():
    for method in (coder().call, coder().__call__):
        _, new = ox.call_and_update(method, XS[0], training=False)
        assert isinstance(new, Coder) and new.seen == 11


def test_a_bound_method_inside_another_call_is_pure():
    class Outer(ox.Module):
        coder: Coder

        def call(self, x):
            _, new = ox.call_and_update(self.coder.encode, x, training=False)
            return new.seen

    seen, new = Outer(coder()).call_and_update(XS[0])
    assert seen == 11 and new.coder.seen == 10 and new.coder.counter.count == 0


def test_an_unknown_keyword_of_a_method():
    with pytest.raises(TypeError, match="Did you mean `scale`"):
        ox.call(coder().encode, XS[0], scal=3.0)


def test_bound_methods_of_other_objects_are_functions():
    class Other:
        def double(self, x):
            return 2 * x

    assert ox.call(Other().double, 2.0) == 4.0


# Over a batch -------------------------------------------------------------------------------------


def net():
    template = nn.Dense.of(4) >> nn.BatchNorm.of(momentum=0.5) >> nn.Dropout.of(0.5)
    return template.init(KEY, XS[0])


def test_a_batch_gives_what_vmap_gives():
    def by_hand(m, xs):
        call = jax.vmap(lambda x: m.call_and_update(x, training=True, rng=KEY), out_axes=(0, None))
        return call(xs)

    want = by_hand(net(), XS)
    for run in both(lambda m, xs: ox.batch_call_and_update(m, xs, training=True, rng=KEY)):
        got = run(net(), XS)
        assert jax.tree.structure(got) == jax.tree.structure(want)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)
    ys = ox.batch_call(net(), XS, training=False)
    np.testing.assert_allclose(ys[2], net()(XS[2], training=False), atol=1e-5)


def test_examples_draw_apart_also_in_a_method():
    _, _, noise = ox.batch_call(coder().encode, XS, training=True, rng=KEY)
    assert len(set(noise.tolist())) == 6


def test_several_inputs_and_pytrees():
    class Pair(ox.Module):
        counter: Counter

        def call(self, x, pair, *, shift):
            return self.counter(x) + pair["a"] + shift

    model = Pair(Counter(jnp.int32(0)))
    ys, new = ox.batch_call_and_update(model, XS, {"a": XS}, shift=jnp.ones(4))
    np.testing.assert_allclose(ys, 2 * XS + 1, rtol=1e-6)
    assert new.counter.count == 1


def test_containers_functions_and_methods():
    model = [nn.Dense.of(4).init(KEY, XS[0]), Counter(jnp.int32(0))]
    ys, new = ox.batch_call_and_update(model, XS, training=True)
    assert ys.shape == (6, 4) and new[1].count == 1
    assert ox.batch_call(jnp.sum, XS).shape == (6,)
    function = ox.init(lambda x: x + ox.variable(jnp.ones(4), name="w"))(KEY, XS[0])
    assert ox.batch_call(function, XS).shape == (6, 4)


def test_state_that_differs_by_example():
    class Total(ox.Module):
        total: jax.Array = ox.state()

        def call(self, x):
            self.assign(total=self.total + x)
            return x

    class Sum(Total):
        total: jax.Array = ox.state(reduce=jnp.sum)

    with pytest.raises(ox.EffectError, match=r"state 'total'.*depends on the mapped axis"):
        ox.batch_call_and_update(Total(jnp.zeros(4)), XS)
    _, new = ox.batch_call_and_update(Sum(jnp.zeros(4)), XS)
    np.testing.assert_allclose(new.total, XS.sum(0), rtol=1e-5)
    with pytest.raises(TypeError, match="Give the batch"):
        ox.batch_call(net())


def test_a_batch_of_functions_and_of_containers():
    y, function = ox.batch_call_and_update(jnp.sin, XS)
    assert function is jnp.sin and (y == jnp.sin(XS)).all()
    parts = [Counter(jnp.int32(0)), jnp.negative, nn.Dropout(0.5)]
    y, new = ox.batch_call_and_update(parts, XS, training=True, rng=KEY)
    assert new[0].count == 1 and new[1] is jnp.negative and y.shape == XS.shape


def test_gradients_go_through_a_batch():
    def loss(model, xs):
        ys, new = ox.batch_call_and_update(model, xs, training=True, rng=KEY)
        return (ys**2).sum(), new

    gradient, new = ox.grad(loss, has_aux=True)(net(), XS)
    assert (gradient.layers[0].kernel != 0).any() and gradient.layers[1].mean is None
    assert new.layers[1].mean.shape == (4,)


# State for each example ---------------------------------------------------------------------------


def test_streams_have_state_of_their_own_and_shared_params():
    attention = nn.MultiHeadAttention.of(2, causal=True).init(KEY, jnp.ones((5, 8)))
    xs = jax.random.normal(KEY, (3, 5, 8))
    streams = ox.per_example(attention.cached(max_length=5), 3)
    step = jax.jit(ox.call_and_update)
    ys = []
    for t in range(5):
        y, streams = step(streams, xs[:, t : t + 1])
        ys.append(y)
    np.testing.assert_allclose(jnp.concatenate(ys, 1), jax.vmap(attention)(xs), atol=1e-4)
    assert streams.model.length.tolist() == [5, 5, 5]
    assert streams.model.query.kernel.shape == attention.query.kernel.shape


def test_streams_take_keywords_and_draw_apart():
    streams = ox.per_example(nn.Dropout(0.5), 8)
    y = streams(jnp.ones((8, 16)), training=True, rng=KEY)
    assert len({bytes(np.asarray(row)) for row in y}) > 1
    with pytest.raises(TypeError, match="takes a module"):
        ox.per_example([], 3)
