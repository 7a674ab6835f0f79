"""Cells run over a sequence, compared with a Python loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox
from oryxstate import nn

IN, FEATURES, TIME = 3, 4, 6
CELLS = [nn.SimpleRNNCell, nn.GRUCell, nn.LSTMCell]
kinds = pytest.mark.parametrize("kind", CELLS)


def sequence(seed=1):
    return jax.random.normal(jax.random.key(seed), (TIME, IN))


def rnn(kind=nn.GRUCell, **options):
    return nn.RNN.of(kind.of(FEATURES), **options).init(jax.random.key(0), sequence())


def looped(cell, xs, mask=None, reverse=False):
    """All outputs in the order of time, by a Python loop that leaves steps out."""
    carry, y = cell.zero_carry(), jnp.zeros(FEATURES)
    ys = [y] * len(xs)
    order = reversed(range(len(xs))) if reverse else range(len(xs))
    for t in order:
        if mask is None or mask[t]:
            carry, y = cell.step(carry, xs[t])
        ys[t] = y
    return jnp.stack(ys)


@kinds
@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_and_gradients_are_those_of_a_loop(kind, reverse):
    model, xs = rnn(kind, reverse=reverse), sequence()
    np.testing.assert_allclose(model(xs), looped(model.cell, xs, None, reverse), atol=1e-5)

    def loss(params, xs, run):
        return jnp.sum(jnp.sin(run(model.cell.replace(params=params), xs)))

    grad = jax.grad(loss, (0, 1))
    ours = grad(model.cell.params, xs, lambda cell, xs: model.replace(cell=cell)(xs))
    expected = grad(model.cell.params, xs, lambda cell, xs: looped(cell, xs, None, reverse))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


@kinds
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]])
def test_masked_steps_are_left_out(kind, reverse, mask):
    model, xs, mask = rnn(kind, reverse=reverse), sequence(), jnp.array(mask, bool)
    expected = looped(model.cell, xs, mask, reverse)
    np.testing.assert_allclose(model(xs, mask), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(ox.call)(model, xs, mask=mask), expected, atol=1e-5)
    alone = model.replace(return_sequence=False)
    last = expected[0 if reverse else -1]
    np.testing.assert_allclose(alone(xs, mask), last, atol=1e-5)
    without = alone(xs[np.flatnonzero(mask)])  # as if they were not there
    np.testing.assert_allclose(alone(xs, mask), without, atol=1e-5)


def test_what_is_masked_has_no_gradient():
    model, mask = rnn(), jnp.arange(TIME) < 4
    grad = jax.grad(lambda xs: jnp.sum(model(xs, mask)))(sequence())
    assert not grad[4:].any() and jnp.abs(grad[:4]).min() > 0


def test_nothing_masked_is_no_mask_and_all_masked_is_silence():
    model, xs = rnn(), sequence()
    np.testing.assert_array_equal(model(xs, jnp.ones(TIME, bool)), model(xs))
    np.testing.assert_array_equal(model(xs, jnp.zeros(TIME, bool)), np.zeros((TIME, FEATURES)))


def test_every_call_starts_from_zero_and_leaves_the_cell_as_it_was():
    model, xs = rnn(), sequence()
    y, new = model.call_and_update(xs)
    assert new.cell.carry is model.cell.carry
    np.testing.assert_array_equal(new(xs), y)
    stale = model.replace(cell=model.cell.replace(carry=jnp.ones(FEATURES)))
    np.testing.assert_array_equal(stale(xs), y)


def test_sequences_of_a_batch_have_masks_of_their_own():
    model, batch = rnn(return_sequence=False), jnp.stack([sequence(1), sequence(2)])
    lengths = jnp.array([2, 5], jnp.int32)
    masks = jnp.arange(TIME, dtype=jnp.int32)[None] < lengths[:, None]
    ys = jax.vmap(model)(batch, masks)
    for y, xs, n in zip(ys, batch, lengths.tolist(), strict=True):
        np.testing.assert_allclose(y, model(xs[:n]), atol=1e-5)


def test_layers_stack_and_specs_are_inferred():
    template = nn.RNN.of(nn.GRUCell.of(5)) >> nn.RNN.of(nn.LSTMCell.of(2), return_sequence=False)
    assert template.spec(sequence()) == ox.ArraySpec((2,))
    assert nn.RNN.of(nn.GRUCell.of(5)).spec(sequence()) == ox.ArraySpec((TIME, 5))
    model = template.init(jax.random.key(0), sequence())
    first, second = model.layers
    assert second.cell.kernel.shape == (5, 8)
    expected = looped(second.cell, looped(first.cell, sequence()))
    np.testing.assert_allclose(model(sequence()), expected[-1], atol=1e-5)


def test_a_sequence_may_be_empty():
    model = rnn()
    assert model(jnp.zeros((0, IN))).shape == (0, FEATURES)
    last = model.replace(return_sequence=False)(jnp.zeros((0, IN)))
    np.testing.assert_array_equal(last, np.zeros(FEATURES))


@pytest.mark.parametrize("mask", [None, jnp.arange(TIME) < 4])
def test_bidirectional_outputs_are_those_of_two(mask):
    xs = sequence()
    model = nn.Bidirectional.of(nn.GRUCell.of(FEATURES)).init(jax.random.key(0), xs)
    forward, backward = model.forward.cell, model.backward.cell
    assert float(jnp.abs(forward.kernel - backward.kernel).max()) > 0.01
    expected = jnp.concatenate(
        [looped(forward, xs, mask), looped(backward, xs, mask, reverse=True)], axis=-1
    )
    np.testing.assert_allclose(model(xs, mask), expected, atol=1e-5)


def test_a_mask_may_be_known_when_a_layer_is_made():
    xs, mask = sequence(), jnp.ones(TIME, bool)
    for template in (nn.RNN.of(nn.GRUCell.of(4)), nn.Bidirectional.of(nn.GRUCell.of(2))):
        model = ox.init(template)(jax.random.key(0), xs, mask)
        np.testing.assert_array_equal(model(xs, mask), model(xs))


class Sum(nn.RecurrentCell):
    """A cell of one's own, whose carry and output differ in shape and dtype."""

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams(state={"carry": {"total": jnp.zeros(in_spec.shape)}})

    def zero_carry(self):
        return {"total": jnp.zeros_like(self.carry["total"])}

    def step(self, carry, x):
        total = carry["total"] + x
        return {"total": total}, (total > 0, total.sum())


def test_cells_of_ones_own():
    xs, mask = sequence(), jnp.arange(TIME) < 4
    model = nn.RNN.of(Sum.of()).init(jax.random.key(0), xs)
    positive, total = model(xs, mask)
    assert positive.dtype == jnp.bool_
    expected = jnp.cumsum(jnp.where(mask[:, None], xs, 0.0), axis=0)
    np.testing.assert_allclose(total, expected.sum(-1), atol=1e-5)
    np.testing.assert_array_equal(positive, expected > 0)


def raises(kind, text):
    return pytest.raises(kind, match=text)


def test_wrong_configurations():
    with raises(TypeError, r"RNN runs a recurrent cell, .* but got Dense.of\(3\)"):
        nn.RNN.of(nn.Dense.of(3))
    with raises(TypeError, r"Bidirectional runs a recurrent cell, .* got the class GRUCell"):
        nn.Bidirectional.of(nn.GRUCell)
    with raises(TypeError, r"Give its template, `GRUCell.of\(...\)`"):
        nn.Bidirectional.of(rnn().cell)
    assert nn.RNN.of(rnn().cell).init(jax.random.key(0), sequence())(sequence()).shape == (6, 4)


def test_wrong_inputs():
    key = jax.random.key(0)
    for layer in (nn.RNN, nn.Bidirectional):
        with raises(ValueError, rf"{layer.__name__} takes \[time, ...\], and perhaps a mask"):
            layer.of(nn.GRUCell.of(3)).init(key, 1.0)
    with raises(ValueError, r"GRUCell at 'cell' takes \[in\], .* but got float32\[3,2\]"):
        nn.RNN.of(nn.GRUCell.of(3)).init(key, jnp.ones((4, 3, 2)))
    with raises(ValueError, r"GRUCell at 'forward.cell' takes \[in\]"):
        nn.Bidirectional.of(nn.GRUCell.of(3)).init(key, jnp.ones((4, 3, 2)))
    with raises(ValueError, r"RNN takes \[time, ...\], but got float32\[\]"):
        rnn()(jnp.array(1.0))
    with raises(ValueError, r"GRUCell at 'cell' takes \[3\]"):
        rnn()(jnp.ones((4, 2)))
    with raises(ValueError, r"RNN takes a mask bool\[6\], but got bool\[5\]"):
        rnn()(sequence(), jnp.ones(5, bool))
    with raises(ValueError, r"RNN takes a mask bool\[6\], but got float32\[6\]"):
        rnn()(sequence(), jnp.ones(6))
