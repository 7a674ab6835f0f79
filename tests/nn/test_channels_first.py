"""`BatchNorm` with its features along any axis is the one of the last axis, transposed."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import close

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
XS = jax.random.normal(KEY, (6, 3, 4, 5)) * 2 + 1


def pair(axis):
    """A norm of this axis and that of the last one, with equal parameters, neither 0 nor 1."""
    features = XS.shape[1:][axis]
    vectors = jax.random.uniform(jax.random.key(1), (4, features), minval=0.5)
    made = partial(nn.BatchNorm, *vectors, momentum=0.75)
    return made(axis=axis), made()


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("jit", [False, True])
def test_outputs_statistics_and_gradients(axis, jit):
    norm, last = pair(axis)

    def run(norm, xs, training):
        ys, new = ox.batch_call_and_update(norm, xs, training=training)
        slope = ox.grad(lambda norm, xs: jnp.sin(ox.batch_call(norm, xs, training=training)).sum())(
            norm, xs
        )
        return ys, (new.mean, new.variance), (slope.scale, slope.bias)

    run = jax.jit(run, static_argnums=2) if jit else run
    at = axis + 1 if axis >= 0 else axis
    for training in (True, False):
        ys, state, slope = run(norm, XS, training)
        want = run(last, jnp.moveaxis(XS, at, -1), training)
        close((jnp.moveaxis(ys, at, -1), state, slope), want)


def test_it_is_pytorchs_channels_first():
    """The statistics of NumPy, over the batch and the spatial axes."""
    norm = ox.init(nn.BatchNorm.of(axis=0, momentum=0.0))(KEY, XS[0])
    ys, norm = ox.batch_call_and_update(norm, XS, training=True)
    np.testing.assert_allclose(norm.mean, np.mean(XS, (0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(norm.variance, np.var(XS, (0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(np.mean(ys, (0, 2, 3)), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(np.var(ys, (0, 2, 3)), np.ones(3), rtol=1e-4)
    close(norm(XS[0], training=False), ox.batch_call(norm, XS, training=False)[0])


def test_through_nested_vmaps_and_any_number_of_spatial_axes():
    norm = ox.init(nn.BatchNorm.of(axis=0))(KEY, XS[0])
    train = lambda x: norm.call_and_update(x, training=True)  # noqa: E731
    over = partial(jax.vmap, out_axes=(0, None))
    ys, new = over(over(train))(XS.reshape(2, 3, 3, 4, 5))
    want, expected = over(train)(XS)
    close((ys.reshape(want.shape), new), (want, expected))
    line, same = over(train)(XS.reshape(6, 3, 20))
    close((line.reshape(want.shape), same), (want, expected))


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"features along axis 3, but got float32\[3,4,5\]"):
        nn.BatchNorm.of(axis=3).init(KEY, XS[0])
    norm = nn.BatchNorm.of(axis=0).init(KEY, XS[0])
    with pytest.raises(ValueError, match=r"BatchNorm takes 3 floats along axis 0, but got"):
        ox.batch_call(norm, jnp.moveaxis(XS, 1, -1), training=True)
    for axis in ((0, 1), 1.0, True, None):
        with pytest.raises(ValueError, match="`axis` is the axis of the features in one example"):
            nn.BatchNorm.of(axis=axis)
