"""Outputs that are edited give the program that one would have written by hand (S16)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

X = jnp.float32(0.3)
WAYS = pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["eager", "jitted"])


class Cell(ox.Module):
    w: jax.Array = ox.param(default_factory=lambda: jnp.float32(0.5))
    n: jax.Array = ox.state(default_factory=lambda: jnp.float32(0))

    def call(self, x):
        self.assign(n=self.n + 1)
        return jnp.tanh(self.w * x)


class Net(ox.Module):
    cell: Cell
    run: object = ox.static()

    def call(self, x):
        return self.run(self.cell, x)


def scan(cell, x):
    return lax.scan(lambda h, _: (cell(h), None), x, None, length=4)[0]


def mapped(cell, x):
    return jax.vmap(partial(scan, cell))(jnp.stack([x, x + 1, x + 2])).sum()


def by_hand(w, x, edit=lambda y, i: y):
    for i in range(4):
        x = edit(jnp.tanh(w * x), i)
    return x


RUNS = {
    "scan": scan,
    "loop": lambda cell, x: cell(cell(cell(cell(x)))),
    "while_loop": lambda cell, x: lax.while_loop(
        lambda s: s[0] < 4, lambda s: (s[0] + 1, cell(s[1])), (0, x)
    )[1],
    "cond in a scan": lambda cell, x: lax.scan(
        lambda h, i: (lax.cond(i < 4, cell, lambda x: x, h), None), x, jnp.arange(6)
    )[0],
    "jit": lambda cell, x: jax.jit(scan)(cell, x),
    "checkpoint": lambda cell, x: jax.checkpoint(partial(scan, cell))(x),
}


def third(y, site):
    return jnp.where(site.call == 2, 5 * y, y)


@WAYS
@pytest.mark.parametrize("row", RUNS)
def test_one_iteration_is_edited(row, way):
    model = Net(Cell(), RUNS[row])
    run = way(ox.intercept(ox.call_and_update, "cell", third))

    def edit(y, i):
        return 5 * y if i == 2 else y

    for _ in range(2):
        y, new = run(model, X)
        np.testing.assert_allclose(y, by_hand(0.5, X, edit), atol=1e-6)
        assert new.cell.n == 4
    assert ox.call(model, X) == pytest.approx(float(by_hand(0.5, X)))
    if row == "while_loop":  # which JAX does not differentiate in reverse
        return
    slope = way(jax.grad(lambda m: run(m, X)[0], allow_int=True))(model).cell.w
    want = jax.grad(by_hand)(0.5, X, edit)
    np.testing.assert_allclose(slope, want, atol=1e-6)


@WAYS
def test_one_example_is_edited(way):
    def edit(y, site):
        return jnp.where((site.call == 2) & (site.example == 1), 5 * y, y)

    y = way(ox.intercept(ox.call, "cell", edit))(Net(Cell(), mapped), X)
    parts = [
        by_hand(0.5, X + j, lambda y, i, j=j: 5 * y if (i, j) == (2, 1) else y) for j in range(3)
    ]
    np.testing.assert_allclose(y, sum(parts), atol=1e-6)


def test_examples_of_two_maps_are_counted_through():
    found = []

    def edit(y, site):
        found.append(ox.sow(site.example, name="example"))
        return y

    def run(cell, x):
        return jax.vmap(jax.vmap(cell))(x + jnp.zeros((2, 3))).sum()

    captured = ox.capture(ox.intercept(ox.call, "cell", edit))(Net(Cell(), run), X)[1]
    np.testing.assert_array_equal(captured.sown["example"], jnp.arange(6).reshape(2, 3))


@WAYS
def test_a_block_of_one_run_is_put_into_another(way):
    """Activation patching in a scanned transformer, value and gradient."""
    block = nn.TransformerBlock.of(nn.MultiHeadAttention.of(2, causal=True), nn.Dense.of(4))
    key, shape = jax.random.key(0), (3, 4)
    model = ox.init(nn.Repeat.of(block, 5))(key, jnp.ones(shape))
    a, b = jax.random.normal(jax.random.key(1), (2, *shape))
    call = partial(ox.call, training=False)
    outputs = ox.capture(call, "layers")(model, a)[1].outputs["layers"]

    def patched(model, x, value):
        def edit(y, site):
            return jnp.where(site.call == 3, value, y)

        return ox.intercept(call, "layers", edit)(model, x).sum()

    def hand_written(model, x, value):
        for i in range(5):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], model.layers)
            x = value if i == 3 else call(layer, x)
        return x.sum()

    got = way(jax.value_and_grad(patched, (0, 1, 2)))(model, b, outputs[3])
    want = jax.value_and_grad(hand_written, (0, 1, 2))(model, b, outputs[3])
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_an_edit_sees_where_it_is():
    seen = []

    def edit(y, site):
        seen.append((site.path, type(site.module).__name__, site.args[0].shape))
        return y

    chain = nn.Dense.of(3) >> nn.Residual.of(nn.Dense.of(3))
    model = ox.init(chain)(jax.random.key(0), jnp.ones(2))
    ox.intercept(model, nn.Dense, edit)(jnp.ones(2))
    assert seen == [("layers[0]", "Dense", (2,)), ("layers[1].body", "Dense", (3,))]


def test_what_is_edited_keeps_its_type():
    model = Net(Cell(), scan)
    with pytest.raises(ValueError, match=r"'cell' is float32\[\], but it was edited to int32\[\]"):
        ox.intercept(model, "cell", lambda y, site: jnp.int32(0))(X)
    with pytest.raises(ValueError, match=r"selected by 'sell'. Did you mean 'cell'"):
        ox.intercept(model, "sell", lambda y, site: y)(X)
    with pytest.raises(TypeError, match=r"`ox.intercept` takes a module or a function"):
        ox.intercept(None, "cell", lambda y, site: y)
