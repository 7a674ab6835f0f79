"""Gradients through the state of layers from call to call (S9)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from hosts import both, close
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
XS = jax.random.normal(KEY, (3, 2))
CELLS = {"simple": nn.SimpleRNNCell, "GRU": nn.GRUCell, "LSTM": nn.LSTMCell}


def in_python(cell):
    total = jnp.float32(0)
    for x in XS:
        y, cell = cell.call_and_update(x)
        total = total + (y**2).sum()
    return total


def in_scan(cell):
    def turn(cell, x):
        y, cell = cell.call_and_update(x)
        return cell, (y**2).sum()

    return lax.scan(jax.checkpoint(turn), cell, XS)[1].sum()


def by_hand(cell):
    """The pure `step` of the cell, its carry threaded."""
    carry, total = cell.carry, jnp.float32(0)
    for x in XS:
        carry, y = cell.step(carry, x)
        total = total + (y**2).sum()
    return total


@pytest.mark.parametrize("way", [in_python, in_scan])
@pytest.mark.parametrize("name", CELLS)
def test_cells(name, way):
    """With respect to params, and to the carry that the first call starts from."""
    cell = ox.init(CELLS[name].of(3))(KEY, XS[0])
    cell = jax.tree.map(lambda leaf: leaf + 0.1, cell)
    want = jax.grad(by_hand)(cell)
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(want))
    for derive in both(jax.grad(way)):
        close(derive(cell), want)


def test_statistics_carry_no_gradient():
    """What `BatchNorm` writes is a constant: the second call does not see the first input."""
    norm = ox.init(nn.BatchNorm.of(momentum=0.5))(KEY, ox.ArraySpec(2))

    def step(norm, xs, training):
        run = jax.vmap(lambda x: norm.call_and_update(x, training=training), out_axes=(0, None))
        return run(xs)

    def loss(xs):
        _, new = step(norm, xs, True)
        return (step(new, XS, False)[0] ** 2).sum()

    for derive in both(jax.grad(loss)):
        close(derive(XS), jnp.zeros_like(XS))

    def of_statistics(mean):
        return (step(norm.replace(mean=mean), XS, False)[0] ** 2).sum()

    assert jnp.all(
        jax.grad(of_statistics)(jnp.ones(2)) != 0
    )  # but what reads them is differentiated
