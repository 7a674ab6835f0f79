"""Embeddings and positions, compared with their formulas and with Equinox."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox
from oryxstate import nn
from oryxstate._errors import InputError

KEY = jax.random.key(0)
SPEC = ox.ArraySpec


def drawn(*shape, seed=1, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


# Embedding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [2, [0, 4, 4], [[1, 2], [3, 0]]])
@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_rows_are_looked_up(ids, dtype):
    ids = jnp.array(ids, dtype)
    layer = nn.Embedding.of(5, 4).init(KEY, ids)
    np.testing.assert_array_equal(layer(ids), np.asarray(layer.embedding)[np.asarray(ids)])


def test_parity_with_equinox():
    ids, weights = jnp.array([3, 0, 3]), drawn(3, 4)
    ours = nn.Embedding.of(5, 4).init(KEY, ids)
    theirs = eqx.nn.Embedding(weight=ours.embedding)
    np.testing.assert_array_equal(ours(ids), jax.vmap(theirs)(ids))
    mine = jax.grad(lambda layer: (weights * jnp.sin(layer(ids))).sum())(ours)
    other = eqx.filter_grad(lambda layer: (weights * jnp.sin(jax.vmap(layer)(ids))).sum())(theirs)
    np.testing.assert_allclose(mine.embedding, other.weight, atol=1e-6)


@pytest.mark.parametrize("outside", [-1, 5, 1000])
def test_integers_outside_give_nan_and_no_gradient(outside):
    ids = jnp.array([outside, 2])
    layer = nn.Embedding.of(5, 4).init(KEY, ids)
    assert jnp.isnan(layer(ids)[0]).all() and jnp.isfinite(layer(ids)[1]).all()
    grad = jax.grad(lambda layer: layer(ids).sum())(layer).embedding
    np.testing.assert_array_equal(grad, np.eye(5)[2][:, None] * np.ones(4))


def test_attend_is_the_product_with_each_row():
    layer = nn.Embedding.of(5, 4).init(KEY, SPEC((), "int32"))
    x = drawn(2, 3, 4)
    expected = np.einsum("abd,vd->abv", np.asarray(x, np.float64), np.asarray(layer.embedding))
    np.testing.assert_allclose(layer.attend(x), expected, atol=1e-5)


class Tied(ox.Module):
    """Predicts a token from another, with one table for both."""

    embedding: nn.Embedding

    def call(self, ids):
        return self.embedding.attend(self.embedding(ids))


def test_a_tied_output_gets_both_gradients():
    ids = jnp.array([1, 3])
    tied = Tied(nn.Embedding.of(5, 4).init(KEY, ids))
    logits, same = tied.call_and_update(ids)
    table = tied.embedding.embedding
    np.testing.assert_allclose(logits, table[ids] @ table.T, atol=1e-5)
    assert same.embedding.embedding is table
    grad = jax.grad(lambda tied: tied(ids)[:, 0].sum())(tied).embedding.embedding
    expected = np.zeros((5, 4))
    expected[0] = np.asarray(table[ids]).sum(0)
    expected[[1, 3]] = np.asarray(table[0])
    np.testing.assert_allclose(grad, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_dtype_of_an_embedding(dtype):
    ids = jnp.array([1, 2])
    stored = nn.Embedding.of(5, 4, param_dtype=dtype).init(KEY, ids)
    assert stored.embedding.dtype == stored(ids).dtype == stored.attend(stored(ids)).dtype == dtype
    computed = nn.Embedding.of(5, 4, dtype=dtype).init(KEY, ids)
    assert computed.embedding.dtype == "float32" and computed(ids).dtype == dtype
    assert computed.attend(drawn(4)).dtype == dtype


def test_rows_are_about_unit_vectors_at_first():
    table = nn.Embedding.of(1000, 64).init(KEY, SPEC((), "int32")).embedding
    assert abs(float(jnp.linalg.norm(table, axis=1).mean()) - 1) < 0.02
    ones = nn.Embedding.of(3, 2, embedding_init=jax.nn.initializers.ones)
    assert (ones.init(KEY, SPEC((), "int32")).embedding == 1).all()


def test_embeddings_refuse_what_are_no_integers():
    with pytest.raises(InputError, match=r"Embedding takes integers, but got float32\[3\]"):
        nn.Embedding.of(5, 4).spec(SPEC(3))
    layer = nn.Embedding.of(5, 4).init(KEY, SPEC((), "int32"))
    for wrong in (drawn(3), jnp.ones(3, bool)):
        with pytest.raises(InputError, match="Embedding takes integers, but got"):
            layer(wrong)
    with pytest.raises(InputError, match=r"takes \[..., 4\] to attend, but got float32\[3\]"):
        layer.attend(drawn(3))


@pytest.mark.parametrize("sizes, name", [((0, 4), "vocabulary"), ((5, 2.0), "features")])
def test_the_sizes_of_an_embedding_are_positive(sizes, name):
    with pytest.raises(ValueError, match=f"Embedding: `{name}` must be a positive integer"):
        nn.Embedding.of(*sizes)


# Sinusoidal positions -----------------------------------------------------------------------------


def vaswani(time, features):
    table = np.zeros((time, features))
    for t in range(time):
        for i in range(features // 2):
            table[t, 2 * i] = np.sin(t / 10000 ** (2 * i / features))
            table[t, 2 * i + 1] = np.cos(t / 10000 ** (2 * i / features))
    return table


@pytest.mark.parametrize("shape", [(7, 6), (2, 7, 6), (50, 2)])
def test_the_table_is_added(shape):
    x = drawn(*shape)
    layer = nn.SinusoidalPosition.of().init(KEY, x)
    expected = np.asarray(x, np.float64) + vaswani(*shape[-2:])
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("dtype, spacing", [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_the_table_is_rounded_once(dtype, spacing):
    """At time 300 an angle in bfloat16 would be off by a radian."""
    x = jnp.zeros((300, 4), dtype)
    y = nn.SinusoidalPosition()(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float64), vaswani(300, 4), atol=spacing)


SEQUENCES = [(6,), (4, 5), ()]


@pytest.mark.parametrize("shape", SEQUENCES)
@pytest.mark.parametrize("layer", [nn.SinusoidalPosition, nn.RotaryPosition])
def test_positions_refuse_what_is_no_sequence(layer, shape):
    text = f"{layer.__name__} takes .* an even number of features\\], but got float32"
    with pytest.raises(InputError, match=text):
        layer.of().spec(SPEC(shape))
    with pytest.raises(InputError, match=text):
        layer()(jnp.zeros(shape))


@pytest.mark.parametrize("layer", [nn.SinusoidalPosition, nn.RotaryPosition])
def test_positions_refuse_integers(layer):
    with pytest.raises(InputError, match=r"even number of features\], but got int32\[4,2\]"):
        layer()(jnp.zeros((4, 2), int))


# Rotary positions ---------------------------------------------------------------------------------


def turned(x, positions, base=10000.0):
    """Pair by pair, as complex numbers."""
    x = np.asarray(x, np.float64)
    half = x.shape[-1] // 2
    angles = np.asarray(positions)[:, None] / base ** (2 * np.arange(half) / x.shape[-1])
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None, :]
    return np.concatenate([z.real, z.imag], -1)


@pytest.mark.parametrize("base", [10000.0, 100.0])
def test_rotary_turns_pairs(base):
    x, positions = drawn(5, 2, 8), jnp.array([0, 1, 7, 3, 100])
    np.testing.assert_allclose(nn.rotary(x, positions, base), turned(x, positions, base), atol=2e-5)
    layer = nn.RotaryPosition.of(base).init(KEY, x)
    np.testing.assert_allclose(layer(x), turned(x, np.arange(5), base), atol=1e-5)


FAR = [0, 1, 17, 1000, 99_999, 100_003, 1_234_567, 2**24 + 1, 2**31 - 1]


@pytest.mark.parametrize("features, base", [(2, 10000.0), (64, 10000.0), (128, 500000.0)])
def test_rotary_positions_are_exact_at_any_distance(features, base):
    """A product in float32 would be off by a radian at 10 ** 7."""
    x, far = drawn(len(FAR), 1, features), np.array(FAR)
    for positions, dtype in ((far, "int32"), (far, "uint32"), (-far, "int32")):
        y = jax.jit(nn.rotary, static_argnums=2)(x, jnp.asarray(positions, dtype), base)
        np.testing.assert_allclose(y, turned(x, positions, base), atol=3e-6)
    small = jnp.arange(-4, 5, dtype="int8")
    np.testing.assert_allclose(
        nn.rotary(x, small, base), turned(x, np.arange(-4, 5), base), atol=3e-6
    )


def test_rotary_positions_in_64_bits():
    with jax.enable_x64(True):
        x, far = drawn(3, 1, 8), jnp.array([2**33 + 1, 10**7, -5])
        assert far.dtype == jnp.int64
        np.testing.assert_allclose(nn.rotary(x, far), turned(x, np.asarray(far)), atol=1e-5)
        exact = nn.rotary(x.astype("float64"), jnp.array(FAR[:3]))
        np.testing.assert_allclose(exact, turned(x, FAR[:3]), atol=1e-12)


def test_rotary_positions_that_are_floats():
    x, positions = drawn(3, 1, 4), jnp.array([0.5, -1.25, 100.75])
    np.testing.assert_allclose(nn.rotary(x, positions), turned(x, positions), atol=2e-5)
    slope = jax.grad(lambda p: nn.rotary(jnp.array([1.0, 0.0]), p)[1])(0.0)
    assert float(slope) == 1


def test_rotary_parity_with_equinox():
    x, weights = drawn(5, 2, 8), drawn(5, 2, 8, seed=2)
    theirs = jax.vmap(eqx.nn.RotaryPositionalEmbedding(8), in_axes=1, out_axes=1)
    np.testing.assert_allclose(nn.RotaryPosition()(x), theirs(x), atol=1e-5)
    mine, other = (
        jax.grad(lambda x, run=run: (weights * jnp.sin(run(x))).sum())(x)
        for run in (nn.RotaryPosition(), theirs)
    )
    np.testing.assert_allclose(mine, other, atol=1e-5)


def test_products_depend_on_the_difference_of_positions():
    query, key = drawn(8), drawn(8, seed=2)
    products = [float(nn.rotary(query, p + 3) @ nn.rotary(key, p)) for p in (0, 1, 20)]
    np.testing.assert_allclose(products, products[0], atol=1e-5)


def test_one_position_at_a_time_is_the_same():
    x = drawn(5, 2, 8)
    steps = jax.vmap(nn.rotary)(x, jnp.arange(5))
    np.testing.assert_allclose(steps, nn.RotaryPosition()(x), atol=1e-6)
    np.testing.assert_allclose(nn.rotary(x[3], 3), steps[3], atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 4e-3), ("bfloat16", 4e-2)])
def test_rotary_is_rounded_once(dtype, tolerance):
    x = drawn(300, 1, 4, dtype=dtype)
    y = nn.RotaryPosition()(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float64), turned(x, np.arange(300)), atol=tolerance)


@pytest.mark.parametrize(
    "shape, positions", [((5, 3), (5,)), ((5, 4), (4,)), ((4,), (4,)), ((), ())]
)
def test_rotary_refuses_what_does_not_fit(shape, positions):
    with pytest.raises(ValueError) as error:
        nn.rotary(jnp.zeros(shape), jnp.zeros(positions))
    assert f"but got {list(shape)} and {list(positions)}" in str(error.value)
