"""Parity of recurrent layers with Flax, with the same parameters."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oryxstate import nn

IN, FEATURES, TIME = 3, 4, 6
CELLS = {
    "simple": (nn.SimpleRNNCell, linen.SimpleCell, "ih"),
    "gru": (nn.GRUCell, linen.GRUCell, "rzn"),
    "lstm": (nn.LSTMCell, linen.LSTMCell, "ifgo"),
}
kinds = pytest.mark.parametrize("kind", CELLS)


def sequence(seed=1):
    return jax.random.normal(jax.random.key(seed), (TIME, IN))


def as_flax(kind, params):
    """Parameters, or gradients of them, as Flax keeps them: gate by gate."""
    gates = CELLS[kind][2]
    if kind == "simple":
        return {
            "i": {"kernel": params["kernel"], "bias": params["bias"]},
            "h": {"kernel": params["recurrent_kernel"]},
        }
    split = {name: jnp.split(params[name], len(gates), -1) for name in KERNELS}
    made = {}
    for at, gate in enumerate(gates):
        made[f"i{gate}"] = {"kernel": split["kernel"][at]}
        made[f"h{gate}"] = {"kernel": split["recurrent_kernel"][at]}
        made[f"{'h' if kind == 'lstm' else 'i'}{gate}"]["bias"] = split["bias"][at]
    if kind == "gru":
        made["hn"]["bias"] = params["recurrent_bias"]
    return made


KERNELS = ("kernel", "recurrent_kernel", "bias")


def drawn(kind, seed=0):
    template = CELLS[kind][0].of(FEATURES, bias_init=jax.nn.initializers.normal(1.0))
    return template.init(jax.random.key(seed), jnp.ones(IN))


def assert_close(ours, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def theirs(kind, **options):
    return linen.RNN(CELLS[kind][1](FEATURES), **options)


@kinds
@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_and_gradients(kind, reverse):
    cell, xs = drawn(kind), sequence()
    rnn = nn.RNN(cell, reverse)
    flax = theirs(kind, reverse=reverse, keep_order=True)

    def expected(params, xs):
        ys = flax.apply({"params": {"cell": params}}, xs[None])[0]
        return jnp.sum(jnp.sin(ys)), ys

    def ours(params, xs):
        ys = rnn.replace(cell=cell.replace(params=params))(xs)
        return jnp.sum(jnp.sin(ys)), ys

    grads, ys = jax.grad(ours, (0, 1), has_aux=True)(cell.params, xs)
    their_grads, their_ys = jax.grad(expected, (0, 1), has_aux=True)(as_flax(kind, cell.params), xs)
    assert_close(ys, their_ys)
    assert_close((as_flax(kind, grads[0]), grads[1]), their_grads)
    assert all(float(jnp.abs(grad).max()) > 1e-3 for grad in jax.tree.leaves(grads))


@kinds
def test_steps_and_carries(kind):
    cell, x = drawn(kind), sequence()[0]
    carry = jax.tree.map(lambda leaf: leaf + 0.5, cell.zero_carry())
    swapped = carry[::-1] if kind == "lstm" else carry  # Flax has (c, h)
    their_carry, their_y = CELLS[kind][1](FEATURES).apply(
        {"params": as_flax(kind, cell.params)}, swapped, x
    )
    new, y = cell.step(carry, x)
    assert_close((new, y), (their_carry[::-1] if kind == "lstm" else their_carry, their_y))


@kinds
def test_lengths(kind):
    cell, xs = drawn(kind), sequence()
    mask = jnp.arange(TIME) < 4
    lengths = jnp.array([4], jnp.int32)
    ys = theirs(kind).apply(
        {"params": {"cell": as_flax(kind, cell.params)}}, xs[None], seq_lengths=lengths
    )[0]
    rnn = nn.RNN(cell)
    assert_close(rnn(xs, mask)[:4], ys[:4])
    assert_close(rnn.replace(return_sequence=False)(xs, mask), ys[3])


@kinds
def test_both_directions(kind):
    cells, xs = [drawn(kind, 1), drawn(kind, 2)], sequence()
    ours = nn.Bidirectional(nn.RNN(cells[0]), nn.RNN(cells[1], reverse=True))
    flax = linen.Bidirectional(theirs(kind), theirs(kind))
    variables = flax.init(jax.random.key(0), xs[None])["params"]
    forward, backward = sorted(variables, key=lambda name: "backward" in name)
    params = {
        name: {"cell": as_flax(kind, cell.params)}
        for name, cell in zip((forward, backward), cells, strict=True)
    }
    assert jax.tree.structure(params) == jax.tree.structure(dict(variables))
    assert_close(ours(xs), flax.apply({"params": params}, xs[None])[0])
