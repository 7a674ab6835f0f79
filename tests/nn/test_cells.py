"""Recurrent cells, compared with their formulas, and their carries as state."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

CELLS = {"simple": nn.SimpleRNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
IN, FEATURES, TIME = 3, 4, 5
cells = pytest.mark.parametrize("kind", CELLS)


def made(kind, **options):
    """A cell whose biases are not zero."""
    template = CELLS[kind].of(FEATURES, bias_init=jax.nn.initializers.normal(1.0), **options)
    return template.init(jax.random.key(0), jnp.ones(IN))


def sequence(seed=1):
    return jax.random.normal(jax.random.key(seed), (TIME, IN))


def carried(cell, seed=2):
    """A carry that is not zero."""
    leaves, structure = jax.tree.flatten(cell.zero_carry())
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(kind, cell, carry, x):
    """The formulas of the docstrings in float64, gate by gate."""
    params = {k: np.asarray(v, np.float64) for k, v in cell.params.items()}
    carry = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), carry)
    hidden = carry[0] if kind == "lstm" else carry
    x = np.asarray(x, np.float64)

    def inputs(i):
        at = slice(i * FEATURES, (i + 1) * FEATURES)
        return x @ params["kernel"][:, at] + params["bias"][at]

    def recurrent(i):
        return hidden @ params["recurrent_kernel"][:, i * FEATURES : (i + 1) * FEATURES]

    if kind == "simple":
        return np.tanh(inputs(0) + recurrent(0))
    if kind == "gru":
        r, z = sigmoid(inputs(0) + recurrent(0)), sigmoid(inputs(1) + recurrent(1))
        n = np.tanh(inputs(2) + r * (recurrent(2) + params["recurrent_bias"]))
        return (1 - z) * n + z * hidden
    i, f, g, o = (inputs(k) + recurrent(k) for k in range(4))
    memory = sigmoid(f) * carry[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(memory), memory


@cells
def test_a_step_is_the_formula(kind):
    cell, x = made(kind), sequence()[0]
    carry = carried(cell)
    new, y = cell.step(carry, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        new,
        by_hand(kind, cell, carry, x),
    )
    np.testing.assert_array_equal(y, new[0] if kind == "lstm" else new)


def equinox_cell(kind, cell):
    """Equinox's cell with these parameters, which it keeps transposed."""
    if kind == "gru":
        theirs = eqx.nn.GRUCell(IN, FEATURES, key=jax.random.key(9))
        values = cell.kernel.T, cell.recurrent_kernel.T, cell.bias, cell.recurrent_bias
        where = lambda c: (c.weight_ih, c.weight_hh, c.bias, c.bias_n)  # noqa: E731
    else:
        theirs = eqx.nn.LSTMCell(IN, FEATURES, key=jax.random.key(9))
        values = cell.kernel.T, cell.recurrent_kernel.T, cell.bias
        where = lambda c: (c.weight_ih, c.weight_hh, c.bias)  # noqa: E731
    return eqx.tree_at(where, theirs, values), where


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_outputs_and_gradients_are_those_of_equinox(kind):
    cell, xs = made(kind), sequence()
    theirs, where = equinox_cell(kind, cell)
    first = carried(cell)

    def loss(step, carry):
        for x in xs:
            carry = step(carry, x)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(carry))

    ours, our_grads = jax.value_and_grad(
        lambda params: loss(lambda c, x: cell.replace(params=params).step(c, x)[0], first)
    )(cell.params)
    expected, grads = jax.value_and_grad(lambda c: loss(lambda h, x: c(x, h), first))(theirs)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    names = ["kernel", "recurrent_kernel", "bias", "recurrent_bias"]
    for name, grad in zip(names, where(grads), strict=False):
        assert float(jnp.abs(grad).max()) > 1e-3
        np.testing.assert_allclose(our_grads[name], grad.T, atol=1e-5)


def threaded(cell, xs):
    """Outputs and last carry by explicit threading."""
    carry, ys = cell.zero_carry(), []
    for x in xs:
        carry, y = cell.step(carry, x)
        ys.append(y)
    return jnp.stack(ys), carry


class Scanned(ox.Module):
    """A cell called in JAX's own scan."""

    cell: nn.RecurrentCell

    def call(self, xs):
        return lax.scan(lambda _, x: (None, self.cell(x)), None, xs)[1]


class Looped(ox.Module):
    """A cell called in a Python loop."""

    cell: nn.RecurrentCell

    def call(self, xs):
        return jnp.stack([self.cell(x) for x in xs])


def assert_close(ours, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


@cells
@pytest.mark.parametrize("run", [Scanned, Looped])
def test_the_carry_as_state_is_the_explicit_carry(kind, run):
    cell, xs = made(kind), sequence()
    ys, model = jax.jit(ox.call_and_update)(run(cell), xs)
    assert_close((ys, model.cell.carry), threaded(cell, xs))


@cells
def test_calls_of_updated_cells_continue(kind):
    cell, xs = made(kind), sequence()
    expected, carry = threaded(cell, xs)
    ys = []
    for x in xs:
        y, cell = cell.call_and_update(x)
        ys.append(y)
    assert_close((jnp.stack(ys), cell.carry), (expected, carry))
    np.testing.assert_allclose(Scanned(cell)(xs), Looped(cell)(xs), atol=1e-5)
    assert float(jnp.abs(Scanned(cell)(xs) - expected).max()) > 1e-3  # not from zero again


@cells
@pytest.mark.parametrize("run", [Scanned, Looped])
def test_gradients_go_through_time(kind, run):
    cell, xs = made(kind), sequence()

    def loss(params, xs, outputs):
        return jnp.sum(jnp.sin(outputs(cell.replace(params=params), xs)[-1]))

    grads = jax.grad(loss, (0, 1))
    ours = grads(cell.params, xs, lambda cell, xs: run(cell)(xs))
    expected = grads(cell.params, xs, lambda cell, xs: threaded(cell, xs)[0])
    assert_close(ours, expected)
    assert float(jnp.abs(ours[1][0]).max()) > 1e-5  # the last output knows the first input


@cells
def test_each_example_has_a_carry_of_its_own(kind):
    cell = made(kind)
    batch = jnp.stack([sequence(1), sequence(2)])
    ys, models = jax.vmap(lambda xs: Scanned(cell).call_and_update(xs))(batch)
    for i, xs in enumerate(batch):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], models.cell.carry)
        assert_close((ys[i], one), threaded(cell, xs))


@cells
def test_first_values(kind):
    cell = CELLS[kind].of(16).init(jax.random.key(3), jnp.ones(100))
    for block in jnp.split(cell.recurrent_kernel, cell.gates, axis=-1):
        np.testing.assert_allclose(block @ block.T, np.eye(16), atol=1e-5)  # each orthogonal
    np.testing.assert_allclose(cell.kernel.std(), 0.1, rtol=0.1)  # 1 / sqrt(in)
    assert not cell.bias.any()
    assert all(not leaf.any() for leaf in jax.tree.leaves(cell.carry))


@cells
def test_dtypes(kind):
    cell, x = made(kind, dtype=jnp.bfloat16), sequence()[0]
    y, new = cell.call_and_update(x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype("float32")}
    exact = made(kind)(x)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.05)
    narrow = made(kind, param_dtype=jnp.bfloat16)
    y, new = narrow.call_and_update(x.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((y, new.params))} == {jnp.dtype("bfloat16")}
    carries = new.carry, new.zero_carry()
    assert {leaf.dtype for leaf in jax.tree.leaves(carries)} == {jnp.dtype("float32")}


def test_wrong_inputs_and_configurations():
    with pytest.raises(ValueError, match=r"GRUCell: `features` must be a positive integer, got 0"):
        nn.GRUCell.of(0)
    expected = r"LSTMCell takes \[in\], the input of one step, but got float32\[2,3\]"
    with pytest.raises(ValueError, match=expected):
        nn.LSTMCell.of(4).init(jax.random.key(0), jnp.ones((2, 3)))
    expected = r"SimpleRNNCell at 'cell' takes \[3\], the input of one step, but got float32\[2\]"
    with pytest.raises(ValueError, match=expected):
        Looped(made("simple"))(jnp.ones((1, 2)))
