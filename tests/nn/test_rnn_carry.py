"""Carries of a recurrent layer: given and returned, kept between chunks, and reset."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
IN, FEATURES, TIME, BATCH = 3, 4, 6, 3
CELLS = [nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell]
kinds = pytest.mark.parametrize("kind", CELLS)


def drawn(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def rnn(kind=nn.GRUCell, **options):
    return nn.RNN.of(kind.of(FEATURES), **options).init(KEY, drawn(TIME, IN))


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


def looped(cell, carry, xs, mask=None, reset=None, reverse=False):
    """The final carry and all outputs, by a Python loop; a reset cuts the sequence there."""
    before, y, ys = cell.zero_carry(), jnp.zeros(FEATURES), [None] * len(xs)
    carry = before if carry is None else carry
    order = list(range(len(xs)))[:: -1 if reverse else 1]
    for t in order:
        starts = t + 1 < len(xs) and reset[t + 1] if reverse and reset is not None else reset
        if starts is not None and (starts if reverse else reset[t]):
            carry, y = before, jnp.zeros(FEATURES)
        if mask is None or mask[t]:
            carry, y = cell.step(carry, xs[t])
        ys[t] = y
    return carry, jnp.stack(ys)


RESETS = [None, [0, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]]
MASKS = [None, [1, 0, 0, 1, 1, 0]]


def flags(values):
    return None if values is None else jnp.array(values, bool)


@kinds
@pytest.mark.parametrize("reverse", [False, True])
def test_initial_and_final_carry_are_those_of_a_loop(kind, reverse):
    model, xs = rnn(kind, reverse=reverse), drawn(TIME, IN)
    carry = jax.tree.map(lambda z: drawn(*z.shape, seed=2), model.cell.zero_carry())
    want = looped(model.cell, carry, xs, reverse=reverse)
    for run in both(lambda m, c, x: ox.call(m.unroll, c, x)):
        close(run(model, carry, xs), want)
    final, last = model.replace(return_sequence=False).unroll(carry, xs)
    close((final, last), (want[0], want[1][0 if reverse else -1]))
    close(model.unroll(None, xs), looped(model.cell, None, xs, reverse=reverse))

    def loss(carry, run):
        final, ys = run(carry)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((final, ys)))

    ours = jax.grad(lambda c: loss(c, lambda c: model.unroll(c, xs)))(carry)
    by_hand = lambda c: looped(model.cell, c, xs, reverse=reverse)  # noqa: E731
    close(ours, jax.grad(lambda c: loss(c, by_hand))(carry))


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("mask", MASKS)
def test_resets_and_masks_are_those_of_a_loop(kind, reverse, reset, mask):
    model, xs = rnn(kind, reverse=reverse), drawn(TIME, IN)
    reset, mask = flags(reset), flags(mask)
    carry = jax.tree.map(lambda z: drawn(*z.shape, seed=2), model.cell.zero_carry())
    want = looped(model.cell, carry, xs, mask, reset, reverse)
    close(model.unroll(carry, xs, mask, reset=reset), want)
    want = looped(model.cell, None, xs, mask, reset, reverse)[1]
    for run in both(ox.call):
        close(run(model, xs, mask, reset=reset), want)


@pytest.mark.parametrize("template", [nn.RNN.of(nn.GRUCell.of(4)), nn.Bidirectional])
def test_packed_sequences_are_as_if_alone(template):
    """What a reset starts sees nothing of what stands before it, in both directions."""
    if template is nn.Bidirectional:
        template = template.of(nn.LSTMCell.of(FEATURES))
    model, xs = template.init(KEY, drawn(TIME, IN)), drawn(TIME, IN)
    reset = flags([1, 0, 1, 0, 0, 1])
    alone = jnp.concatenate([model(part) for part in (xs[:2], xs[2:5], xs[5:])])
    close(ox.call(model, xs, reset=reset), alone)
    slope = jax.jacobian(lambda xs: ox.call(model, xs, reset=reset).sum(-1))(xs)
    sequence = jnp.cumsum(reset)
    apart = sequence[:, None] != sequence[None]
    assert (jnp.abs(slope).sum(-1)[apart] == 0).all()


def test_a_reset_of_a_whole_chunk_is_one_of_its_first_step():
    model, xs = rnn(), drawn(TIME, IN)
    carry = drawn(FEATURES, seed=2)
    for starts in (False, True):
        want = model.unroll(carry, xs, reset=jnp.arange(TIME) < int(starts))
        close(model.unroll(carry, xs, reset=jnp.array(starts)), want)
    empty = model.unroll(carry, jnp.zeros((0, IN)), reset=jnp.array(True))
    close(empty, (carry, jnp.zeros((0, FEATURES))))


@kinds
def test_chunks_of_a_stream_are_one_sequence(kind):
    model, xs = rnn(kind, stateful=True), drawn(TIME, IN)
    carry, want = looped(model.cell, None, xs)
    for step in both(ox.call_and_update):
        new, ys = model, []
        for chunk in (xs[:2], xs[2:3], xs[3:]):
            y, new = step(new, chunk)
            ys.append(y)
        close((new.cell.carry, jnp.concatenate(ys)), (carry, want))
    assert model.cell.carry is not new.cell.carry

    def scanned(model, xs):
        def body(model, chunk):
            y, model = model.call_and_update(chunk)
            return model, y

        return jax.lax.scan(body, model, xs.reshape(3, 2, IN))

    new, ys = jax.jit(scanned)(model, xs)
    close((new.cell.carry, ys.reshape(TIME, FEATURES)), (carry, want))


def test_gradients_flow_from_chunk_to_chunk():
    model, xs = rnn(stateful=True), drawn(TIME, IN)

    def by_chunks(model, xs):
        _, model = model.call_and_update(xs[:3])
        return model(xs[3:]).sum()

    def at_once(model, xs):
        return looped(model.cell, model.cell.carry, xs)[1][3:].sum()

    close(ox.grad(by_chunks)(model, xs).params, ox.grad(at_once)(model, xs).params)
    close(*(jax.grad(f, 1)(model, xs) for f in (by_chunks, at_once)))


class Net(ox.Module):
    """Two recurrent layers inside a call, the second in a native scan over the chunk's halves."""

    first: nn.RNN
    second: nn.RNN

    def call(self, x):
        h = self.first(x)
        halves = h.reshape(2, -1, FEATURES)
        return jax.lax.scan(lambda c, half: (c, self.second(half)), 0, halves)[1].reshape(h.shape)


def test_a_stream_inside_a_call_and_a_scan():
    xs, other = drawn(TIME, IN), drawn(TIME, FEATURES)
    second = nn.RNN.of(nn.LSTMCell.of(FEATURES), stateful=True).init(jax.random.key(3), other)
    model = Net(rnn(stateful=True), second)
    carry, h = looped(model.first.cell, None, xs)
    carries, want = looped(second.cell, None, h)
    for run in both(ox.call_and_update):
        y, new = run(model, xs)
        close((y, new.first.cell.carry, new.second.cell.carry), (want, carry, carries))


STACK = (
    nn.RNN.of(nn.GRUCell.of(FEATURES), stateful=True)
    >> nn.Dense.of(FEATURES)
    >> nn.RNN.of(nn.LSTMCell.of(FEATURES), stateful=True)
)


@pytest.mark.parametrize("whole", [False, True])
def test_streams_of_a_batch_are_reset_each_by_itself(whole):
    """A reset is a keyword that reaches every recurrent layer, for each example its own."""
    model = STACK.init(KEY, drawn(TIME, IN))
    streams = ox.per_example(model, BATCH)
    chunks = drawn(4, BATCH, TIME, IN)
    resets = jax.random.bernoulli(KEY, 0.3, (4, BATCH) if whole else (4, BATCH, TIME))
    first, dense, second = model
    steps = resets[..., None] & (jnp.arange(TIME) == 0)[None, None] if whole else resets
    for i in range(BATCH):
        xs, reset = chunks[:, i].reshape(-1, IN), steps[:, i].reshape(-1)
        hidden = dense(looped(first.cell, None, xs, None, reset)[1])
        carry, want = looped(second.cell, None, hidden, None, reset)
        new, ys = streams, []
        for x, r in zip(chunks, resets, strict=True):
            y, new = jax.jit(ox.call_and_update)(new, x, reset=r)
            ys.append(y[i])
        close(jnp.concatenate(ys), want)
        close(jax.tree.map(lambda c, i=i: c[i], new.model[2].cell.carry), carry)


def test_keywords_of_streams_belong_to_the_examples_and_others_are_shared():
    class Scaled(ox.Module):
        total: jax.Array = ox.state()

        def call(self, x, *, scale, power=1, training=False, rng=None):
            self.assign(total=self.total + x)
            return self.total * scale**power * (2 if training else 1)

    streams = ox.per_example(Scaled(jnp.float32(0)), 2)
    xs, scales = jnp.array([1.0, 2.0]), jnp.array([10.0, 100.0])
    assert streams(xs, scale=scales, power=2).tolist() == [100, 20000]
    assert streams(xs, scale=3.0, training=True, rng=KEY).tolist() == [6, 12]
    with pytest.raises(TypeError, match=r"takes a keyword `sale`\. Did you mean `scale`"):
        streams(xs, sale=scales)


def test_a_layer_that_is_not_stateful_keeps_nothing():
    model, xs = rnn(), drawn(TIME, IN)
    _, new = model.call_and_update(xs)
    assert new.cell.carry is model.cell.carry
    kept = model.replace(cell=model.cell.replace(carry=jnp.ones(FEATURES)), stateful=True)
    close(kept(xs), looped(model.cell, jnp.ones(FEATURES), xs)[1])


def raises(kind, text):
    return pytest.raises(kind, match=text)


def test_wrong_carries():
    model, xs = rnn(nn.LSTMCell), drawn(TIME, IN)
    zeros = jnp.zeros(FEATURES)
    expected = r"RNN must be like `cell.zero_carry\(\)`, \(float32\[4\], float32\[4\]\), but got "
    for carry, given in [
        (zeros, r"float32\[4\]\. Give the final carry that `unroll` of an equal cell returned"),
        ((zeros, jnp.zeros(3)), r"\(float32\[4\], float32\[3\]\)\."),
        ((zeros, jnp.zeros(4, int)), r"\(float32\[4\], int32\[4\]\)\."),
    ]:
        with raises(ValueError, expected + given):
            model.unroll(carry, xs)

    class Net(ox.Module):
        rnn: nn.RNN

        def call(self, carry, x):
            return self.rnn.unroll(carry, x)

    with raises(ValueError, "the initial carry of RNN at 'rnn' must be like .* or None for zeros"):
        Net(model)(zeros, xs)


def test_what_needs_a_carry_for_each_example_says_so():
    with raises(ox.EffectError, r"state 'cell.carry'.*`ox.per_example\(model, size\)`"):
        ox.batch_call(rnn(stateful=True), drawn(BATCH, TIME, IN))


class Draws(nn.RecurrentCell):
    """A cell whose carry holds a random key, a counter and a Python number."""

    @classmethod
    def initialize(cls, init_key, in_spec):
        carry = {"key": jax.random.key(1), "count": jnp.array(0), "sum": jnp.array(0.0)}
        return nn.LayerParams(state={"carry": carry})

    def zero_carry(self):
        return {"key": jax.random.key(1), "count": jnp.array(0), "sum": 0.0}

    def step(self, carry, x):
        key, own = jax.random.split(carry["key"])
        y = carry["sum"] + x.sum() + jax.random.normal(own)
        return {"key": key, "count": carry["count"] + 1, "sum": y}, y


def test_a_stream_with_a_carry_that_is_not_all_floats():
    model, xs = nn.RNN.of(Draws.of(), stateful=True).init(KEY, drawn(TIME, IN)), drawn(TIME, IN)
    first, new = model.call_and_update(xs[:2])
    rest, new = new.call_and_update(xs[2:])
    close(jnp.concatenate([first, rest]), model.replace(stateful=False)(xs))
    assert int(new.cell.carry["count"]) == TIME and new.cell.carry["sum"].dtype == jnp.float32


def test_wrong_resets():
    model, xs = rnn(nn.LSTMCell), drawn(TIME, IN)
    with raises(ValueError, r"RNN takes a reset bool\[6\] or bool\[\], but got bool\[5\]"):
        model(xs, reset=jnp.zeros(5, bool))
    with raises(ValueError, r"RNN takes a reset bool\[6\] or bool\[\], but got float32\[6\]"):
        model(xs, reset=jnp.zeros(6))
    with raises(ValueError, r"RNN: with `reverse` a call starts at the end .* Leave out `stateful"):
        nn.RNN.of(nn.GRUCell.of(3), reverse=True, stateful=True)
    with raises(ValueError, "Leave out `stateful=True`, or `reverse=True`"):
        nn.RNN(model.cell, reverse=True, stateful=True)
