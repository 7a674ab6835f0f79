"""Pools and their gradients, compared with their formulas in 1 to 3 dimensions."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from oryxstate.nn import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    SumPool,
)

KEY = jax.random.key(0)


WINDOWED = {MaxPool: np.max, AvgPool: np.mean, SumPool: np.sum}


ADAPTIVE = {AdaptiveMaxPool: np.max, AdaptiveAvgPool: np.mean}


GLOBAL = {GlobalMaxPool: np.max, GlobalAvgPool: np.mean}


def draw(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def each(value, axes):
    return (value,) * axes if isinstance(value, int) else tuple(value)


def in_boxes(x, boxes, reduce):
    """The reduction of each box of the input; a box is some places along each axis."""
    y = np.zeros((*map(len, boxes), x.shape[-1]))
    for i in np.ndindex(*y.shape[:-1]):
        cut = np.ix_(*(boxes[axis][at] for axis, at in enumerate(i)))
        y[i] = reduce(np.asarray(x, np.float64)[cut], axis=tuple(range(x.ndim - 1)))
    return y


def windows(n, length, stride, low, high, dilation=1):
    """The part of each window that is no padding."""
    starts = range(-low, n + high - dilation * (length - 1), stride)
    every = ([start + dilation * i for i in range(length)] for start in starts)
    return [[i for i in window if 0 <= i < n] for window in every]


# What the input and the windows are, and the padding of each axis by hand.
POOLS = {
    "1-D": ((6, 3), 2, None, "VALID", [(0, 0)]),
    "1-D overlapping": ((7, 2), (3,), 1, "VALID", [(0, 0)]),
    "1-D with a rest": ((7, 2), 3, 3, "VALID", [(0, 0)]),
    "1-D same": ((5, 2), [3], [2], "SAME", [(1, 1)]),
    "1-D strides beyond the window": ((7, 2), 2, 3, "SAME", [(0, 1)]),
    "2-D": ((4, 6, 2), (2, 3), None, "VALID", [(0, 0), (0, 0)]),
    "2-D lists": ((5, 6, 2), [2, 3], [1, 2], [[1, 0], [0, 2]], [(1, 0), (0, 2)]),
    "2-D integer padding": ((4, 4, 2), 3, 2, 1, [(1, 1), (1, 1)]),
    "2-D same": ((5, 4, 2), 2, (2, 1), "SAME", [(0, 1), (0, 1)]),
    "3-D": ((3, 4, 3, 2), 2, 1, ((0, 1), (1, 1), (0, 0)), [(0, 1), (1, 1), (0, 0)]),
}


def boxes_of(name):
    shape, window, strides, _, pads = POOLS[name]
    axes = len(shape) - 1
    steps = each(window if strides is None else strides, axes)
    sizes = zip(shape[:-1], each(window, axes), steps, pads, strict=True)
    return [windows(n, length, step, *around) for n, length, step, around in sizes]


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("name", POOLS)
def test_pools_are_their_formulas(kind, name):
    shape, window, strides, padding, _ = POOLS[name]
    x = draw(1, shape) - 3  # all negative: a maximum with zeros would show
    pool = kind.of(window, strides=strides, padding=padding).init(KEY, x)
    expected = in_boxes(x, boxes_of(name), WINDOWED[kind])
    assert pool.spec(x).shape == expected.shape
    np.testing.assert_allclose(pool(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pool(x), kind(window, strides, padding)(x))


# Shape, window, strides, padding, its lengths by hand, and the dilation.
DILATED = {
    "1-D": ((9, 2), 3, 1, "VALID", [(0, 0)], 2),
    "1-D by the window": ((9, 2), 2, None, "VALID", [(0, 0)], [3]),
    "1-D same": ((7, 2), 3, 2, "SAME", [(2, 2)], 2),
    "1-D padding": ((4, 2), 2, 1, 2, [(2, 2)], 3),
    "2-D": ((5, 6, 2), (2, 3), 1, ((1, 0), (0, 2)), [(1, 0), (0, 2)], (3, 2)),
    "3-D": ((3, 4, 3, 2), 2, 1, "VALID", [(0, 0)] * 3, (1, 2, 1)),
}


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("name", DILATED)
def test_dilated_pools_are_their_formulas(kind, name):
    shape, window, strides, padding, pads, dilation = DILATED[name]
    axes, x = len(shape) - 1, draw(1, shape) - 3
    steps = each(window if strides is None else strides, axes)
    sizes = zip(shape[:-1], each(window, axes), steps, pads, each(dilation, axes), strict=True)
    boxes = [windows(n, length, step, *ends, apart) for n, length, step, ends, apart in sizes]
    expected = in_boxes(x, boxes, WINDOWED[kind])
    pool = kind.of(window, strides, padding, dilation=dilation).init(KEY, x)
    assert pool.spec(x).shape == expected.shape
    np.testing.assert_allclose(pool(x), expected, rtol=1e-5, atol=1e-5)
    order = jax.random.permutation(KEY, jnp.arange(float(np.prod(shape)))).reshape(shape) / 10
    check_grads(jax.jit(pool), (order,), order=1, eps=1e-2, rtol=1e-2, atol=1e-2)


def test_dilated_maxima_of_corner_values():
    pool = MaxPool(2, 1, 1, dilation=2)
    x = jnp.array([[1.0], [jnp.nan], [1.0], [-jnp.inf]])
    np.testing.assert_array_equal(pool(x).ravel(), [jnp.nan, 1.0, jnp.nan, 1.0])
    assert pool(jnp.full((3, 1), -128, "int8")).ravel().tolist() == [-128] * 3
    grad = jax.grad(lambda x: MaxPool(2, dilation=2)(x).sum())(jnp.ones((3, 1)))
    assert grad.ravel().tolist() == [1, 0, 0], "the first of equal elements"
    jaxpr = jax.make_jaxpr(MaxPool(2))(x)
    assert [e.primitive.name for e in jaxpr.jaxpr.eqns][-1] == "reduce_window_max"


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("name", ["1-D overlapping", "2-D lists", "3-D"])
def test_derivatives_are_those_of_differences(kind, name):
    shape, window, strides, padding, _ = POOLS[name]
    x = jax.random.permutation(KEY, jnp.arange(float(np.prod(shape)))).reshape(shape) / 10
    check_grads(
        jax.jit(kind(window, strides, padding)), (x,), order=1, eps=1e-2, rtol=1e-2, atol=1e-2
    )


def assert_same(ours, theirs, x):
    """The same output, and the same gradient for one direction of it."""

    def pulled(function):
        out, pull = jax.vjp(function, x)
        return out, *pull(draw(3, out.shape))

    for a, b in zip(jax.jit(pulled, static_argnums=0)(ours), pulled(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def cells(n, size):
    """PyTorch's rule, in floating point."""
    ends = [(int(np.floor(i * n / size)), int(np.ceil((i + 1) * n / size))) for i in range(size)]
    return [range(*pair) for pair in ends]


SIZES = [
    ((7, 2), 3),
    ((4, 2), (4,)),
    ((3, 2), 5),  # more cells than elements
    ((5, 7, 2), [2, 3]),
    ((4, 6, 2), 2),
    ((3, 4, 5, 2), (2, 1, 4)),
]


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("shape, size", SIZES)
def test_adaptive_pools_are_their_formulas(kind, shape, size):
    x = draw(1, shape)
    pool = kind.of(size).init(KEY, x)
    axes = len(shape) - 1
    boxes = [cells(n, k) for n, k in zip(shape[:-1], each(size, axes), strict=True)]
    expected = in_boxes(x, boxes, ADAPTIVE[kind])
    assert pool.spec(x).shape == expected.shape
    np.testing.assert_allclose(jax.jit(pool)(x), expected, rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(pool) == jax.tree.structure(kind(size))


def test_cells_are_those_that_pytorch_documents():
    ends = [AdaptiveMaxPool(3)(jnp.arange(float(n))[:, None]).ravel().tolist() for n in (3, 5, 10)]
    assert ends == [[0, 1, 2], [1, 3, 4], [3, 6, 9]]


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_derivatives_of_adaptive_pools_are_those_of_differences(kind):
    x = jax.random.permutation(KEY, jnp.arange(70.0)).reshape(5, 7, 2) / 10
    check_grads(jax.jit(kind((2, 3))), (x,), order=1, eps=1e-2, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", GLOBAL)
@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (2, 3, 4, 3), (2, 2, 2, 2, 3)])
def test_global_pools_reduce_all_spatial_axes(kind, shape):
    x = draw(1, shape)
    pool = kind.of().init(KEY, x)
    expected = GLOBAL[kind](np.asarray(x).reshape(-1, 3), axis=0)
    np.testing.assert_allclose(pool(x), expected, rtol=1e-5, atol=1e-6)
    adaptive = {GlobalMaxPool: AdaptiveMaxPool, GlobalAvgPool: AdaptiveAvgPool}[kind]
    if len(shape) <= 4:
        assert_same(pool, lambda x: adaptive(1)(x).ravel(), x)


EVERY = {
    "MaxPool": MaxPool(3, 1, "SAME"),
    "AvgPool": AvgPool(3, 1, "SAME"),
    "SumPool": SumPool(3, 1, "SAME"),
    "AdaptiveMaxPool": AdaptiveMaxPool(2),
    "AdaptiveAvgPool": AdaptiveAvgPool(2),
    "GlobalMaxPool": GlobalMaxPool(),
    "GlobalAvgPool": GlobalAvgPool(),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", EVERY)
def test_narrow_dtypes_round_once(name, dtype):
    x = draw(1, (5, 7, 2), dtype)
    run = jax.jit(EVERY[name])
    y = run(x)
    assert y.dtype == dtype
    exact = run(x.astype(jnp.float32))
    np.testing.assert_allclose(
        y.astype(jnp.float32), exact.astype(dtype).astype(jnp.float32), rtol=1e-6, atol=1e-6
    )
    assert jax.eval_shape(jax.grad(lambda x: run(x).sum()), x).dtype == dtype


@pytest.mark.parametrize("kind", [AvgPool(64), AdaptiveAvgPool(1), GlobalAvgPool()], ids=repr)
def test_means_of_large_float16_do_not_overflow(kind):
    assert kind(jnp.full((64, 1), 6e4, jnp.float16)).item() == pytest.approx(6e4, rel=1e-3)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8"])
@pytest.mark.parametrize("name", EVERY)
def test_integers(name, dtype):
    x = jax.random.randint(KEY, (5, 7, 2), 0, 10).astype(dtype)
    run = jax.jit(EVERY[name])
    y = run(x)
    assert y.dtype == ("float32" if "Avg" in name else dtype)
    np.testing.assert_allclose(y, run(x.astype(jnp.float32)))


def test_the_lowest_integer_pads_maxima():
    x = jnp.full((2, 1), -128, "int8")
    assert MaxPool(2, 1, 1)(x).ravel().tolist() == [-128] * 3


def test_the_first_of_equal_maxima_has_the_gradient():
    grad = jax.grad(lambda x: MaxPool(3)(x).sum())(jnp.array([[1.0], [1.0], [0.0]]))
    assert grad.ravel().tolist() == [1, 0, 0]
    grad = jax.grad(lambda x: GlobalMaxPool()(x).sum())(jnp.array([[1.0], [1.0], [0.0]]))
    assert grad.ravel().tolist() == [0.5, 0.5, 0]


def test_numpy_arrays_are_taken():
    for pool, shape in itertools.product(EVERY.values(), [(4, 2), (4, 4, 2)]):
        x = np.ones(shape, np.float32)
        np.testing.assert_array_equal(pool(x), pool(jnp.asarray(x)))


def test_layers_print_what_is_configured():
    assert repr(MaxPool([2, 2])) == "MaxPool(window_shape=(2, 2))"
    assert repr(GlobalAvgPool()) == "GlobalAvgPool()"
