"""Keywords at calls inside, for all that stands below the called module (S13, S15)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEY, OTHER = jax.random.split(jax.random.key(0))
X = jnp.ones(4)


class Draw(ox.Module):
    """A plain module that returns what reached it."""

    def call(self, x, *, training: bool = True, rng: Any = None, temperature: Any = 1.0):
        return 0 if rng is None else jax.random.bits(rng), jnp.asarray(training), x / temperature


class Holds(ox.Module):
    """Takes none of the keywords itself."""

    parts: Any

    def call(self, x):
        return [part(x) for part in self.parts]


class Outer(ox.Module):
    """Calls the module inside with keywords, through a transformation."""

    inner: Any
    run: Any = ox.static()

    def call(self, x, *args):
        return self.run(self.inner, x, *args)


def outer(run, parts=2):
    return Outer(Holds([Draw() for _ in range(parts)]), run)


GIVEN = {"training": False, "rng": OTHER, "temperature": jnp.float32(2)}
WAYS = {
    "directly": lambda m, x, **k: m(x, **k),
    "jit inside": lambda m, x, **k: jax.jit(lambda x: m(x, **k))(x),
    "jit, as an argument": lambda m, x, **k: jax.jit(lambda m, x: m(x, **k))(m, x),
    "keys by argument": lambda m, x, *, rng, training, temperature: jax.jit(
        lambda x, r, t: m(x, training=training, rng=r, temperature=t)
    )(x, rng, temperature),
    "checkpoint": lambda m, x, **k: jax.checkpoint(lambda x: m(x, **k))(x),
    "cond": lambda m, x, **k: lax.cond(x.sum() > 0, lambda: m(x, **k), lambda: m(x, **k)),
    "scan": lambda m, x, **k: jax.tree.map(
        lambda a: a[0], lax.scan(lambda c, _: (c, m(x, **k)), 0, None, length=1)[1]
    ),
    "grad": lambda m, x, **k: jax.grad(lambda x: (m(x, **k)[0][2].sum(), m(x, **k)), has_aux=True)(
        x
    )[1],
}


@pytest.mark.parametrize("way", WAYS)
def test_inner_keywords_rule_over_those_of_the_root(way):
    model = outer(lambda m, x: WAYS[way](m, x, **GIVEN))
    for run in both(lambda x: model(x, training=True, rng=KEY, temperature=4.0)):
        for bits, training, scaled in run(X):
            assert not training and bits != 0 and (scaled == 0.5).all()
        first, second = (int(bits) for bits, *_ in run(X))
        assert first != second


@pytest.mark.parametrize("way", WAYS)
def test_inner_keywords_reach_modules_where_the_root_has_none(way):
    model = outer(lambda m, x: WAYS[way](m, x, **GIVEN))
    for run in both(model):
        assert all(bits != 0 and not training for bits, training, _ in run(X))


def test_what_is_not_given_inside_comes_from_the_root():
    model = outer(lambda m, x: (m(x, training=False), m(x)))
    inner, after = model(X, training=True, rng=KEY, temperature=2.0)
    assert not any(t for _, t, _ in inner) and all(t for _, t, _ in after)
    drawn = [int(bits) for bits, *_ in (*inner, *after)]
    assert len(set(drawn)) == 4 and 0 not in drawn
    assert all((scaled == 0.5).all() for *_, scaled in (*inner, *after))


def test_the_innermost_call_rules():
    class Middle(ox.Module):
        inner: Any

        def call(self, x):
            return self.inner(x, training=True), self.inner(x)

    model = Outer(Middle(Holds([Draw()])), lambda m, x: (m(x, training=False), m(x)))
    seen = model(X, training=True)
    assert [bool(part[0][1]) for pair in seen for part in pair] == [True, False, True, True]


def test_calls_with_one_key_draw_apart():
    """Each call of a module has a key of its own from it, also in a loop."""
    model = outer(lambda m, x: (m(x, rng=KEY), m(x, rng=KEY)), parts=1)
    (one, *_), (two, *_) = (part[0] for part in model(X))
    assert one != two
    model = outer(
        lambda m, x: lax.scan(lambda c, _: (c, m(x, rng=KEY)[0][0]), 0, None, length=3)[1], parts=1
    )
    for run in both(model):
        assert len(set(run(X).tolist())) == 3


def test_examples_draw_apart():
    model = outer(lambda m, xs: jax.vmap(lambda x: m(x, rng=KEY)[0][0])(xs))
    keys = jax.random.split(KEY, 3)
    mapped = outer(lambda m, xs, keys: jax.vmap(lambda x, k: m(x, rng=k)[0][0])(xs, keys))
    for run in both(lambda xs: (model(xs), mapped(xs, keys))):
        for drawn in run(jnp.ones((3, 2))):
            assert len(set(drawn.tolist())) == 3


def test_mapped_arrays_and_their_gradients():
    model = outer(
        lambda m, xs, ts: jax.vmap(lambda x, t: jax.jit(lambda x: m(x, temperature=t)[0][2])(x))(
            xs, ts
        ),
        parts=1,
    )
    xs, ts = jnp.ones(3), jnp.array([1.0, 2.0, 4.0])
    for run in both(model):
        np.testing.assert_allclose(run(xs, ts), 1 / ts)
    gradient = jax.grad(lambda ts: model(xs, ts).sum())(ts)
    np.testing.assert_allclose(gradient, -1 / ts**2)


def test_an_array_in_the_predicate_of_a_loop():
    """It is held at the trace of the call, so nothing is written."""

    def run(m, x):
        def go_on(h):
            return m(h, temperature=jnp.float32(2))[0][2].sum() < 8

        return lax.while_loop(go_on, lambda h: h * 2, x)

    for call in both(outer(run, parts=1)):
        assert (call(X) == 4).all()


@pytest.mark.parametrize("between", [lambda f: f, jax.jit, jax.checkpoint])
def test_a_cached_trace_of_other_keywords_is_not_used(between):
    body = between(lambda m, x: m(x))

    class Through(ox.Module):
        inner: Any

        def call(self, x):
            return body(self.inner, x)[0][2]

    model = Outer(Through(Holds([Draw()])), lambda m, x, *ts: [m(x, temperature=t) for t in ts])
    values = 1, jnp.float32(2), 4.0, jnp.full(4, 8.0), 1.0
    for _ in range(2):  # the second root call finds what the first one has traced
        for got, t in zip(model(X, *values), values, strict=True):
            np.testing.assert_allclose(got, X / t)


def test_state_is_written_once():
    class Tap(ox.Module):
        n: jax.Array = ox.state()

        def call(self, x, *, training):
            self.assign(n=self.n + (1 if training else 10))
            return x

    model = Outer(Holds([Tap(jnp.int32(0))]), lambda m, x: (m(x, training=False), m(x)))
    for run in both(lambda m, x: ox.call_and_update(m, x, training=True)):
        assert run(model, X)[1].inner.parts[0].n == 11


def test_a_frozen_backbone_is_one_keyword():
    template = nn.Dense.of(4) >> nn.BatchNorm.of() >> nn.Dropout.of(0.5)

    class Tuned(ox.Module):
        backbone: Any
        head: Any

        def call(self, x):
            return self.head(self.backbone(x, training=False))

    model = Tuned(template.init(KEY, X), template.init(OTHER, X))
    xs = jax.random.normal(KEY, (8, 4))
    step = jax.vmap(lambda m, x: m.call_and_update(x, training=True, rng=KEY), (None, 0), (0, None))
    _, new = jax.jit(step)(model, xs)
    assert (new.backbone.layers[1].mean == model.backbone.layers[1].mean).all()
    assert (new.head.layers[1].mean != model.head.layers[1].mean).all()


COMPOSITES = {
    "Serial": nn.Dense.of(4) >> nn.Dropout.of(0.5),
    "Residual": nn.Residual.of(nn.Dropout.of(0.5)),
    "Shared": nn.Shared.of(nn.Dropout.of(0.5), 2),
    "Repeat": nn.Repeat.of(nn.Residual.of(nn.Dropout.of(0.5)), 2),
    "FanOut": nn.FanOut.of(nn.Dropout.of(0.5), nn.Dense.of(2)),
    "EMA": nn.EMA.of(nn.Dense.of(4) >> nn.Dropout.of(0.5)),
    "Dense": nn.Dense.of(4),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_take_both_keywords(name):
    inner = COMPOSITES[name].init(KEY, X)
    quiet = Outer(inner, lambda m, x: m(x, training=False, rng=KEY))
    jax.tree.map(np.testing.assert_allclose, quiet(X, training=True), inner(X, training=False))
    loud = Outer(inner, lambda m, x: m(x, training=True, rng=KEY))
    for run in both(lambda m, x: m.call_and_update(x, training=False)):
        out, new = run(loud, X)
        assert jax.tree.structure(new) == jax.tree.structure(loud)
    if name != "Dense":
        differ = jax.tree.map(lambda a, b: bool((a != b).any()), out, quiet(X))
        assert any(jax.tree.leaves(differ))


def test_a_value_without_a_place_takes_keywords():
    dropped = (nn.Dense.of(4) >> nn.Dropout.of(0.5)).init(KEY, X)

    def run(m, x):
        return ox.snapshot(m)(x, training=False), m(x, training=False)

    jax.tree.map(np.testing.assert_allclose, *Outer(dropped, run)(X))
    counted = nn.EMA.of(nn.Dense.of(4)).init(KEY, X)
    with pytest.raises(ox.EffectError, match="not part of the model"):
        Outer(X, lambda _, x: Holds([counted])(x, training=True))(X)


def test_super_calls_and_mixed_signatures():
    class Base(ox.Module):
        def call(self, x, *, rng=None):
            return 0 if rng is None else jax.random.bits(rng)

    class Mine(Base):
        def call(self, x, *, training=False):
            return super().call(x), training

    model = Outer(Holds([Mine(), Mine()]), lambda m, x: jax.jit(lambda m, x: m(x))(m, x))
    (one, training), (two, _) = model(X, training=True, rng=KEY)
    assert training and one != two and one != 0
    assert Mine()(X) == (0, False)


def test_errors_say_where_and_suggest():
    model = outer(lambda m, x: m(x, trainig=True))
    text = r"neither Holds at 'inner' nor a module in it takes a keyword `trainig`\. Did you mean "
    text += "`training`"
    for run in both(model):
        with pytest.raises(TypeError, match=text):
            run(X)
    with pytest.raises(TypeError, match="`rng` must be a random key"):
        outer(lambda m, x: m(x, rng=3))(X)


def test_what_a_model_takes():
    assert ox.keywords(outer(None)) == {"rng": False, "temperature": False, "training": False}
    model = (nn.Dense.of(4) >> nn.BatchNorm.of()).init(KEY, X)
    assert ox.keywords([model, nn.Dropout(0.5)])["training"] is True
    assert ox.keywords(model.layers[0]) == {}


def test_both_keywords_are_welcome_at_every_root():
    dense = nn.Dense.of(4).init(KEY, X)
    function = ox.init(lambda x: 2 * x)(KEY, X)
    for root in (dense, [dense], (dense, dense), {"a": dense}, jnp.sin, lambda x: -x, function):
        want = ox.call(root, X)
        for run in both(lambda x, root=root: ox.call(root, x, training=True, rng=KEY)):
            jax.tree.map(np.testing.assert_allclose, run(X), want)
