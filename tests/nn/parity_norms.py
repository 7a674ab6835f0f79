"""Parity of normalizations, embeddings and linear variants with Flax."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oryxstate import nn

KEY = jax.random.key(0)


def drawn(*shape, seed=1):
    return 0.3 + jax.random.normal(jax.random.key(seed), shape)


def assert_same(ours, theirs, params, x):
    """The same outputs, and the same gradients of parameters and input.

    `params` maps names of Flax to the fields of ours.
    """
    fields = {name: drawn(*getattr(ours, f).shape, seed=i) for i, (name, f) in enumerate(params)}
    weights = drawn(*jax.eval_shape(ours, x).shape, seed=9)

    def mine(fields, x):
        layer = ours.replace(**{field: fields[name] for name, field in params})
        return layer(x)

    def other(fields, x):
        return theirs.apply({"params": fields}, x)

    def loss(run):
        return lambda *both: (weights * jnp.sin(run(*both))).sum()

    np.testing.assert_allclose(mine(fields, x), other(fields, x), atol=1e-5)
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    arguments = (0, 1) if floats else 0
    got, expected = (jax.grad(loss(run), arguments)(fields, x) for run in (mine, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)


BOTH = (("scale", "scale"), ("bias", "bias"))
ROWS = {
    "LayerNorm": (nn.LayerNorm.of(), linen.LayerNorm(epsilon=1e-5), BOTH, drawn(3, 6)),
    "LayerNorm of two axes": (
        nn.LayerNorm.of((-3, -1)),
        linen.LayerNorm(epsilon=1e-5, reduction_axes=(-3, -1), feature_axes=(-3, -1)),
        BOTH,
        drawn(3, 4, 5),
    ),
    "RMSNorm": (nn.RMSNorm.of(), linen.RMSNorm(epsilon=1e-5), BOTH[:1], drawn(3, 6)),
    "PReLU": (nn.PReLU.of(), linen.PReLU(), (("negative_slope", "slope"),), drawn(3, 6)),
    "Embedding": (
        nn.Embedding.of(7, 4),
        linen.Embed(7, 4),
        (("embedding", "embedding"),),
        jnp.array([[3, 0], [6, 3]]),
    ),
    "Einsum": (
        nn.Einsum.of("...d,dhk->h...k", (6, 2, 4)),
        linen.Einsum((6, 2, 4), "...d,dhk->h...k"),
        (("kernel", "kernel"), ("bias", "bias")),
        drawn(3, 6),
    ),
    "Einsum with shared axes": (
        nn.Einsum.of("thd,hdk->thk", (2, 3, 4)),
        linen.Einsum((2, 3, 4), "thd,hdk->thk"),
        (("kernel", "kernel"), ("bias", "bias")),
        drawn(5, 2, 3),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_parity_with_flax(name):
    template, theirs, params, x = ROWS[name]
    assert_same(template.init(KEY, x), theirs, params, x)


@pytest.mark.parametrize(
    "template, theirs",
    [
        (nn.GroupNorm.of(2), linen.GroupNorm(2, epsilon=1e-5)),
        (nn.InstanceNorm.of(), linen.InstanceNorm(epsilon=1e-5)),
    ],
)
def test_parity_of_norms_that_flax_has_for_batches(template, theirs):
    x = drawn(3, 4, 6)

    class One:
        @staticmethod
        def apply(variables, x):
            return theirs.apply(variables, jnp.expand_dims(x, 0))[0]

    assert_same(template.init(KEY, x), One, BOTH, x)


def test_attend_is_that_of_flax():
    ours = nn.Embedding.of(7, 4).init(KEY, jnp.array(1))
    params = {"params": {"embedding": ours.embedding}}
    theirs = linen.Embed(7, 4).apply(params, drawn(3, 4), method="attend")
    np.testing.assert_allclose(ours.attend(drawn(3, 4)), theirs, atol=1e-5)


class Spectral(linen.Module):
    """A dense layer of Flax with spectral normalization."""

    iterations: int

    @linen.compact
    def __call__(self, x, training):
        layer = linen.SpectralNorm(linen.Dense(4), n_steps=self.iterations)
        return layer(x, update_stats=training)


@pytest.mark.parametrize("iterations", [1, 3])
def test_spectral_norm_over_steps(iterations):
    """While training; otherwise Flax iterates too, and divides by what that gives."""
    x = drawn(3)
    ours = nn.SpectralNorm.of(nn.Dense.of(4), iterations=iterations).init(KEY, x)
    theirs = Spectral(iterations)
    variables = theirs.init(KEY, x, training=False)
    dense = {"kernel": drawn(3, 4, seed=3), "bias": drawn(4, seed=4)}
    ours = ours.replace(layer=ours.layer.replace(**dense))
    stats = variables["batch_stats"]["SpectralNorm_0"]
    (u_name,) = [name for name in stats if name.endswith("/u")]
    ours = ours.replace(u=stats[u_name][0])
    for _ in range(3):

        def theirs_of(dense, stats=stats):
            variables = {
                "params": {"Dense_0": dense},
                "batch_stats": {"SpectralNorm_0": stats},
            }
            return theirs.apply(variables, x, training=True, mutable="batch_stats")

        def ours_of(dense, ours=ours):
            changed = ours.replace(layer=ours.layer.replace(**dense))
            return changed.call_and_update(x, training=True)

        expected, updates = theirs_of(dense)
        y, after = ours_of(dense)
        stats = updates["batch_stats"]["SpectralNorm_0"]
        np.testing.assert_allclose(y, expected, atol=1e-5)
        np.testing.assert_allclose(after.u, stats[u_name][0], atol=1e-5)
        grads = [
            jax.grad(lambda d, f=f: jnp.sin(f(d)[0]).sum())(dense) for f in (ours_of, theirs_of)
        ]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)
        ours = after
        dense = jax.tree.map(lambda a, g: a - 0.1 * g, dense, grads[0])


class Weight(linen.Module):
    """A dense layer of Flax with weight normalization."""

    @linen.compact
    def __call__(self, x):
        return linen.WeightNorm(linen.Dense(4), variable_filter={"kernel"})(x)


def test_weight_norm():
    x = drawn(3)
    ours = nn.WeightNorm.of(nn.Dense.of(4)).init(KEY, x)
    ours = ours.replace(scale=drawn(4, seed=5))
    theirs, dense = Weight(), {"kernel": ours.layer.kernel, "bias": drawn(4, seed=4)}
    names = theirs.init(KEY, x)["params"]["WeightNorm_0"]
    (name,) = names
    fields = (dense, ours.scale)

    def mine(dense, scale, x):
        return ours.replace(layer=ours.layer.replace(**dense), scale=scale)(x)

    def other(dense, scale, x):
        params = {"Dense_0": dense, "WeightNorm_0": {name: scale}}
        return theirs.apply({"params": params}, x)

    np.testing.assert_allclose(mine(*fields, x), other(*fields, x), atol=1e-5)
    got, expected = (
        jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), (0, 1, 2))(*fields, x) for f in (mine, other)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)
