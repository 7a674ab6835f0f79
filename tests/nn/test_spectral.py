"""Normalized kernels, and their singular vectors over many steps."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox
from oryxstate import nn
from oryxstate._errors import InputError

KEY = jax.random.key(0)
X = jnp.array([1.0, -2.0, 0.5])


def drawn(*shape, seed=1, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def kernel_of(model, **keywords):
    """The kernel that a wrapped dense layer without bias computes with."""
    return jax.vmap(lambda x: model(x, **keywords))(jnp.eye(model.layer.kernel.shape[0]))


def dense(features, **options):
    return nn.Dense.of(features, use_bias=False, **options)


class Kernel(nn.Layer):
    """A layer with a kernel of four axes, with state, that counts its calls while training."""

    kernel: jax.Array = ox.param()
    count: jax.Array = ox.state()

    @classmethod
    def initialize(cls, init_key, in_spec):
        kernel = jax.random.normal(init_key, (2, 2, in_spec.shape[-1], 4))
        return nn.LayerParams(params={"kernel": kernel}, state={"count": jnp.array(0)})

    def call(self, x, *, training: bool, rng: Any = None):
        self.assign(count=self.count + int(training))
        noise = 0.0 if rng is None else jax.random.normal(rng)
        return jnp.einsum("i,abio->abo", x, self.kernel) + noise


# Spectral normalization ---------------------------------------------------------------------------


def by_hand(matrix, u, v, iterations):
    for _ in range(iterations):
        v = matrix @ u / np.linalg.norm(matrix @ u)
        u = matrix.T @ v / np.linalg.norm(matrix.T @ v)
    return u, v, v @ matrix @ u


@pytest.mark.parametrize("iterations", [1, 4])
def test_power_iteration_over_steps(iterations):
    model = nn.SpectralNorm.of(dense(4), iterations=iterations).init(KEY, X)
    u, v = drawn(4), drawn(3, seed=2)
    model = model.replace(u=u, v=v)
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    for step in range(4):
        matrix = np.asarray(drawn(3, 4, seed=10 + step), np.float64)  # as an optimizer changes it
        model = model.replace(layer=model.layer.replace(kernel=jnp.asarray(matrix, "float32")))
        u, v, sigma = by_hand(matrix, u, v, iterations)
        y, model = model.call_and_update(X, training=True)
        np.testing.assert_allclose(y, np.asarray(X) @ matrix / sigma, atol=1e-4)
        np.testing.assert_allclose(model.u, u, atol=1e-5)
        np.testing.assert_allclose(model.v, v, atol=1e-5)
        np.testing.assert_array_equal(model.layer.kernel, jnp.asarray(matrix, "float32"))


def test_it_stays_as_it_is_unless_training():
    model = nn.SpectralNorm.of(dense(4)).init(KEY, X).replace(u=drawn(4), v=drawn(3))
    y, after = model.call_and_update(X, training=False)
    np.testing.assert_array_equal(after.u, model.u)
    np.testing.assert_array_equal(after.v, model.v)
    kernel = np.asarray(model.layer.kernel, np.float64)
    sigma = np.asarray(model.v) @ kernel @ np.asarray(model.u)
    np.testing.assert_allclose(y, np.asarray(X) @ kernel / sigma, rtol=1e-4)


def test_the_largest_singular_value_becomes_1():
    model = nn.SpectralNorm.of(dense(4)).init(KEY, X)
    before = np.linalg.norm(kernel_of(model, training=False), 2)
    np.testing.assert_allclose(before, 1, atol=0.05)  # before any step
    for _ in range(40):
        model = model.update(X, training=True)
    kernel = kernel_of(model, training=False)
    np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, atol=1e-5)
    largest = np.linalg.norm(model.layer.kernel, 2)
    np.testing.assert_allclose(kernel * largest, model.layer.kernel, atol=1e-5)


def test_parity_with_equinox_over_steps():
    """Equinox starts from the other vector, so it is given the transposed kernel."""
    ours = nn.SpectralNorm.of(dense(4)).init(KEY, X)
    theirs, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        eqx.nn.Linear(4, 3, use_bias=False, key=KEY), "weight", key=KEY
    )
    state = state.set(theirs.uv_index, (ours.v, ours.u))
    weights = drawn(3, 4, seed=5)

    def mine(kernel, ours):
        changed = ours.replace(layer=ours.layer.replace(kernel=kernel))
        run = jax.vmap(lambda x: changed.call_and_update(x, training=True), out_axes=(0, None))
        normalized, after = run(jnp.eye(3))
        return (weights * jnp.sin(normalized)).sum(), after

    def other(kernel, state):
        changed = eqx.tree_at(lambda m: m.layer.weight, theirs, kernel)
        run = jax.vmap(changed, (0, None), (1, None))
        normalized, after = run(jnp.eye(4), state)
        return (weights * jnp.sin(normalized)).sum(), after

    for step in range(3):
        kernel = drawn(3, 4, seed=10 + step)
        (value, ours), grad = jax.value_and_grad(mine, has_aux=True)(kernel, ours)
        (expected, state), their_grad = jax.value_and_grad(other, has_aux=True)(kernel, state)
        np.testing.assert_allclose(value, expected, atol=1e-5)
        np.testing.assert_allclose(grad, their_grad, atol=1e-5)
        for a, b in zip((ours.v, ours.u), state.get(theirs.uv_index), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_batch_updates_once():
    model = nn.SpectralNorm.of(nn.Dense.of(4)).init(KEY, X).replace(u=drawn(4))
    run = jax.vmap(lambda x: model.call_and_update(x, training=True), out_axes=(0, None))
    _, after = run(drawn(5, 3))
    np.testing.assert_allclose(after.u, model.update(X, training=True).u, atol=1e-6)


def test_a_kernel_of_zeros_is_left_and_can_recover():
    zeros = jax.nn.initializers.zeros
    model = nn.SpectralNorm.of(dense(4, kernel_init=zeros)).init(KEY, X)
    assert abs(float(jnp.linalg.norm(model.u)) - 1) < 1e-5
    y, model = model.call_and_update(X, training=True)
    np.testing.assert_array_equal(y, np.zeros(4))
    grad = jax.grad(lambda m: m(X, training=True).sum())
    changed = model.replace(layer=model.layer.replace(kernel=drawn(3, 4)))
    for _ in range(60):
        changed = changed.update(X, training=True)
    np.testing.assert_allclose(np.linalg.norm(kernel_of(changed, training=False), 2), 1, atol=1e-4)
    assert jnp.isfinite(grad(model).layer.kernel).all()


@pytest.mark.parametrize("of", [nn.SpectralNorm.of, nn.WeightNorm.of])
def test_the_inner_layer_keeps_its_state_keywords_and_keys(of):
    model = (of(Kernel.of()) >> of(nn.Dense.of(2))).init(KEY, X)
    y, after = model.call_and_update(X, training=True, rng=KEY)
    assert int(after.layers[0].layer.count) == 1 and y.shape == (2, 2, 2)
    assert not np.allclose(y, model(X, training=True))  # the key reached it
    again = after.update(X, training=True).update(X, training=False)
    assert int(again.layers[0].layer.count) == 2


def test_a_kernel_of_many_axes_is_a_matrix_of_its_features():
    model = nn.SpectralNorm.of(Kernel.of(), iterations=50).init(KEY, X)
    assert model.u.shape == (4,) and model.v.shape == (12,)
    matrix = np.asarray(model.layer.kernel).reshape(12, 4)
    expected = np.einsum("i,abio->abo", X, model.layer.kernel) / np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(model(X, training=True), expected, atol=1e-5)


@pytest.mark.parametrize(
    "of, more", [(nn.SpectralNorm.of, {"training": True}), (nn.WeightNorm.of, {})]
)
@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_the_dtype_is_that_of_the_inner_layer(of, more, dtype, tolerance):
    model = of(dense(4, param_dtype=dtype)).init(KEY, X.astype(dtype))
    kernel = jax.vmap(lambda x: model(x, **more))(jnp.eye(3, dtype=dtype))
    assert kernel.dtype == dtype and model.layer.kernel.dtype == dtype
    wide = model.replace(layer=model.layer.replace(kernel=model.layer.kernel.astype("float32")))
    np.testing.assert_allclose(
        np.asarray(kernel, np.float32), kernel_of(wide, **more), atol=tolerance
    )
    if more:
        assert model.u.dtype == model.v.dtype == "float32"
        assert model.update(X.astype(dtype), **more).u.dtype == "float32"


def test_a_traced_training_is_refused():
    model = nn.SpectralNorm.of(nn.Dense.of(4)).init(KEY, X)
    with pytest.raises(TypeError, match="SpectralNorm got a traced `training`"):
        jax.jit(lambda t: model(X, training=t))(True)
    with pytest.raises(TypeError, match="SpectralNorm needs `training`"):
        model(X)


# Weight normalization -----------------------------------------------------------------------------


def test_the_weight_is_unchanged_at_first():
    model = nn.WeightNorm.of(nn.Dense.of(4)).init(KEY, X)
    np.testing.assert_allclose(model(X), model.layer(X), atol=1e-6)
    np.testing.assert_allclose(model.scale, np.linalg.norm(model.layer.kernel, axis=0), rtol=1e-6)


def test_a_direction_and_a_length_for_each_feature():
    model = nn.WeightNorm.of(Kernel.of()).init(KEY, X)
    model = model.replace(scale=jnp.arange(4.0))
    v = np.asarray(model.layer.kernel, np.float64)
    kernel = np.arange(4) * v / np.sqrt((v**2).sum((0, 1, 2)))
    expected = np.einsum("i,abio->abo", X, kernel)
    np.testing.assert_allclose(model(X, training=False), expected, atol=1e-5)


def test_weight_norm_parity_with_equinox():
    ours = nn.WeightNorm.of(nn.Dense.of(4)).init(KEY, X).replace(scale=drawn(4))
    theirs = eqx.nn.WeightNorm(eqx.nn.Linear(3, 4, key=KEY))
    theirs = eqx.tree_at(
        lambda m: (m.layer.weight, m.layer.bias, m.g),
        theirs,
        (ours.layer.kernel.T, ours.layer.bias, ours.scale[:, None]),
    )
    np.testing.assert_allclose(ours(X), theirs(X), atol=1e-5)

    def loss(layer, x):
        return jnp.sin(layer(x)).sum()

    mine, mine_x = jax.grad(loss, (0, 1))(ours, X)
    arrays, rest = eqx.partition(theirs, eqx.is_array)
    other, other_x = jax.grad(lambda a, x: loss(eqx.combine(a, rest), x), (0, 1))(arrays, X)
    np.testing.assert_allclose(mine.layer.kernel, other.layer.weight.T, atol=1e-5)
    np.testing.assert_allclose(mine.layer.bias, other.layer.bias, atol=1e-5)
    np.testing.assert_allclose(mine.scale, other.g[:, 0], atol=1e-5)
    np.testing.assert_allclose(mine_x, other_x, atol=1e-5)


def test_weight_norm_of_zeros_is_finite():
    zeros = jax.nn.initializers.zeros
    model = nn.WeightNorm.of(dense(4, kernel_init=zeros)).init(KEY, X)
    np.testing.assert_array_equal(model(X), np.zeros(4))
    grad = jax.grad(lambda m: m(X).sum())(model)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grad))


# What is refused ----------------------------------------------------------------------------------

both = pytest.mark.parametrize("layer", [nn.SpectralNorm, nn.WeightNorm])


@both
def test_another_field(layer):
    template = layer.of(nn.Embedding.of(5, 3), "embedding")
    ids, more = jnp.array([4, 0]), {"training": True} if layer is nn.SpectralNorm else {}
    model = template.init(KEY, ids)
    table = model.layer.embedding
    expected = table / (np.linalg.norm(table, 2) if more else 1)
    for _ in range(40 if more else 0):
        model = model.update(ids, **more)
    np.testing.assert_allclose(model(ids, **more), expected[ids], atol=1e-5)


@both
def test_a_layer_made_before(layer):
    made = nn.Dense.of(4).init(KEY, X)
    assert layer.of(made).init(KEY, X).layer is made


@both
@pytest.mark.parametrize(
    "inner, field, text",
    [
        (nn.Dense.of(4), "weight", "parameter `weight`, but Dense has these: kernel, bias."),
        (nn.Dense.of(4), "dtype", "parameter `dtype`, but Dense has these: kernel, bias."),
        (nn.Dropout.of(0.5), "kernel", "parameter `kernel`, but Dropout has these: none."),
        (nn.Dense.of(4) >> jnp.sin, "kernel", "but Serial has these: none. Wrap the layer that"),
        (jnp.sin, "kernel", "has these: none."),
    ],
)
def test_inner_layers_without_a_kernel(layer, inner, field, text):
    with pytest.raises(TypeError) as error:
        layer.of(inner, field)
    assert str(error.value).startswith(f"{layer.__name__} needs a layer with a parameter")
    assert text in str(error.value)


@both
def test_inner_layers_that_are_none(layer):
    with pytest.raises(TypeError, match=r"is the class Dense\. Say how it is configured"):
        layer.of(nn.Dense)
    with pytest.raises(TypeError, match=f"part 0 of {layer.__name__} is a int"):
        layer.of(3)


@both
def test_kernels_that_are_no_matrices(layer):
    with pytest.raises(ValueError, match=r"`bias` must be an array of floats .* float32\[4\]"):
        layer.of(nn.Dense.of(4), "bias").init(KEY, X)
    with pytest.raises(ValueError, match=r"`bias` must be .* but it is None"):
        layer.of(dense(4), "bias").init(KEY, X)


@both
def test_a_wrong_input_names_the_inner_layer(layer):
    with pytest.raises(InputError, match=r"Dense at 'layer' takes \[..., in\], but got"):
        layer.of(nn.Dense.of(4)).spec(ox.ArraySpec(()))
    more = {"training": True} if layer is nn.SpectralNorm else {}
    model = nn.Serial.of(jnp.sin, layer.of(nn.Dense.of(4))).init(KEY, X)
    with pytest.raises(InputError, match=r"Dense at 'layers\[1\].layer' takes \[..., 3\], but got"):
        model(drawn(5), **more)


@pytest.mark.parametrize("iterations", [0, -1, 1.0])
def test_iterations_are_positive(iterations):
    with pytest.raises(ValueError, match="SpectralNorm: `iterations` must be a positive integer"):
        nn.SpectralNorm.of(nn.Dense.of(4), iterations=iterations)
