"""Einsum, Bilinear and PReLU, compared with their formulas."""

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


# Einsum -------------------------------------------------------------------------------------------

EQUATIONS = [
    # equation, kernel, input, bias, bias in the output
    ("td,dhk->thk", (3, 2, 4), (5, 3), (2, 4), (2, 4)),
    ("...d,dhk->h...k", (3, 2, 4), (5, 6, 3), (2, 4), (2, 1, 1, 4)),
    (" ...d , dk -> k... ", (3, 4), (5, 3), (4,), (4, 1)),
    ("thd,hdk->thk", (2, 3, 4), (5, 2, 3), (2, 4), (2, 4)),
    ("d...,dk->...k", (3, 4), (3,), (4,), (4,)),
    ("td,d->t", (3,), (5, 3), (), ()),
    ("t,k->tk", (4,), (5,), (4,), (4,)),
    ("ab,ba->", (3, 2), (2, 3), (), ()),
]


@pytest.mark.parametrize("equation, shape, x_shape, bias_shape, in_output", EQUATIONS)
def test_einsum(equation, shape, x_shape, bias_shape, in_output):
    x = drawn(*x_shape)
    layer = nn.Einsum.of(equation, shape).init(KEY, x)
    assert layer.kernel.shape == shape and layer.bias.shape == bias_shape
    assert (layer.bias == 0).all()
    layer = layer.replace(bias=drawn(*bias_shape))
    expected = np.einsum(equation, np.asarray(x, np.float64), np.asarray(layer.kernel, np.float64))
    expected = expected + np.asarray(layer.bias).reshape(in_output)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_einsum_without_bias_is_dense_with_its_gradients():
    x = drawn(5, 3)
    dense = nn.Dense.of(4).init(KEY, x)
    layer = nn.Einsum.of("...i,io->...o", (3, 4)).init(KEY, x)
    layer = layer.replace(kernel=dense.kernel)
    np.testing.assert_allclose(layer(x), dense(x), atol=1e-6)
    grads = [jax.grad(lambda f, x: jnp.sin(f(x)).sum(), (0, 1))(f, x) for f in (layer, dense)]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert nn.Einsum.of("ti,io->to", (3, 4), use_bias=False).init(KEY, x).bias is None


@pytest.mark.parametrize(
    "equation, shape, x, fan_in, fan_out",
    [
        ("td,dhk->thk", (100, 10, 20), (1, 100), 100, 200),
        ("thk,hkd->td", (10, 20, 100), (1, 10, 20), 200, 100),
        ("thd,hdk->thk", (20, 30, 40), (1, 20, 30), 30, 40),
    ],
)
def test_the_fans_of_the_first_kernel_are_those_of_the_sum(equation, shape, x, fan_in, fan_out):
    kernel = nn.Einsum.of(equation, shape).init(KEY, SPEC(x)).kernel
    expected = np.sqrt(2 / (fan_in + fan_out))
    np.testing.assert_allclose(kernel.std(), expected, rtol=0.05)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "of, inputs",
    [
        (lambda **o: nn.Einsum.of("ti,io->to", (3, 4), **o), ((5, 3),)),
        (lambda **o: nn.Bilinear.of(4, **o), ((3,), (2,))),
        (lambda **o: nn.PReLU.of(**o), ((3,),)),
        (lambda **o: nn.PReLU.of(per_feature=True, **o), ((2, 3),)),
    ],
)
def test_dtypes(of, inputs, dtype):
    xs = [drawn(*shape, dtype=dtype) for shape in inputs]
    stored = of(param_dtype=dtype).init(KEY, *xs)
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype(dtype)}
    assert stored(*xs).dtype == dtype
    computed = of(dtype=dtype).init(KEY, *xs)
    assert {leaf.dtype for leaf in jax.tree.leaves(computed)} == {jnp.dtype("float32")}
    assert computed(*xs).dtype == dtype
    wide = of().init(KEY, *xs)(*(x.astype("float32") for x in xs))
    np.testing.assert_allclose(np.asarray(computed(*xs), np.float32), wide, atol=0.05)


@pytest.mark.parametrize(
    "equation",
    ["ti,io", "ti->io", "ti,io,ok->tk", "ti,...o->to", "...i,io->o", "ti,io->tk", "t...i...,io->o"],
)
def test_equations_that_are_none(equation):
    with pytest.raises(ValueError) as error:
        nn.Einsum.of(equation, (3, 4))
    assert "must be of the form `x,kernel->y`" in str(error.value)
    assert repr(equation) in str(error.value)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
def test_a_kernel_of_another_rank_than_its_letters(shape):
    with pytest.raises(ValueError, match="one length for each of the kernel's different axes"):
        nn.Einsum.of("ti,io->to", shape)


def test_a_kernel_with_a_diagonal():
    with pytest.raises(ValueError, match="different axes"):
        nn.Einsum.of("ti,ii->ti", (3, 3))
    with pytest.raises(ValueError, match="Einsum: `shape` must be a positive integer, got 0"):
        nn.Einsum.of("ti,io->to", (3, 0))


@pytest.mark.parametrize(
    "equation, shape, wrong, text",
    [
        ("ti,io->to", (3, 4), (5, 2), "Einsum takes [t, 3], but got float32[5,2]."),
        ("ti,io->to", (3, 4), (3,), "[t, 3], but got float32[3]."),
        ("ti,io->to", (3, 4), (1, 5, 3), "[t, 3]"),
        ("t...i,io->t...o", (3, 4), (3,), "[t, ..., 3]"),
        ("tti,io->to", (3, 4), (2, 5, 3), "[t, t, 3]"),
    ],
)
def test_inputs_that_do_not_fit_an_equation(equation, shape, wrong, text):
    template = nn.Einsum.of(equation, shape)
    with pytest.raises(InputError) as error:
        template.spec(SPEC(wrong))
    assert text in str(error.value)
    right = SPEC({"ti": (5, 3), "t...i": (5, 3), "tti": (5, 5, 3)}[equation.split(",")[0]])
    with pytest.raises(InputError) as error:
        template.init(KEY, right)(drawn(*wrong))
    assert text in str(error.value)


# Bilinear -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(), (5,), (2, 5)])
def test_bilinear(axes):
    x1, x2 = drawn(*axes, 3), drawn(*axes, 4, seed=2)
    layer = nn.Bilinear.of(2).init(KEY, x1, x2).replace(bias=drawn(2))
    expected = np.asarray(layer.bias) + np.stack(
        [
            np.einsum("...i,ij,...j->...", *(np.asarray(a, np.float64) for a in (x1, kernel, x2)))
            for kernel in jnp.moveaxis(layer.kernel, -1, 0)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(layer(x1, x2), expected, atol=1e-5)
    np.testing.assert_allclose(layer((x1, x2)), expected, atol=1e-5)


def test_bilinear_gradients_are_those_of_products_and_a_dense_layer():
    x1, x2 = drawn(3), drawn(4, seed=2)
    layer = nn.Bilinear.of(2).init(KEY, x1, x2)

    def other(layer, x1, x2):
        return jnp.outer(x1, x2).reshape(-1) @ layer.kernel.reshape(12, 2) + layer.bias

    mine, theirs = (
        jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), (0, 1, 2))(layer, x1, x2)
        for f in (lambda layer, *xs: layer(*xs), other)
    )
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_bilinear_after_two_layers():
    x = drawn(3)
    model = ox.init(nn.FanOut.of(nn.Dense.of(2), nn.Dense.of(5)) >> nn.Bilinear.of(4))(KEY, x)
    assert model(x).shape == (4,)
    assert model.layers[1].kernel.shape == (2, 5, 4)


def test_bilinear_keeps_the_variance_at_first():
    x1, x2 = drawn(500, 40), drawn(500, 50, seed=2)
    y = nn.Bilinear.of(2000, use_bias=False).init(KEY, x1, x2)(x1[:50], x2[:50])
    assert abs(float(y.var()) - 1) < 0.15


@pytest.mark.parametrize("shapes", [((3,),), ((3,), (4,), (5,)), ((2, 3), (4,)), ((), (4,))])
def test_bilinear_takes_two_inputs(shapes):
    with pytest.raises(InputError, match=r"Bilinear takes two arrays, \[..., in1\] and \[..., in2"):
        nn.Bilinear.of(2).spec(*map(SPEC, shapes))


@pytest.mark.parametrize("shapes", [((3,),), ((4,), (3,)), ((2, 3), (4,)), ((), (4,))])
def test_bilinear_refuses_other_inputs_than_it_was_made_for(shapes):
    layer = nn.Bilinear.of(2).init(KEY, SPEC(3), SPEC(4))
    with pytest.raises(InputError, match=r"two arrays, \[..., 3\] and \[..., 4\], but got"):
        layer(*(drawn(*shape) for shape in shapes))


def test_the_features_of_bilinear_are_positive():
    with pytest.raises(ValueError, match="Bilinear: `features` must be a positive integer"):
        nn.Bilinear.of(0)


# PReLU --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_feature", [False, True])
def test_prelu(per_feature):
    x = drawn(4, 3).at[0, 0].set(0.0)
    layer = nn.PReLU.of(0.1, per_feature=per_feature).init(KEY, x)
    assert layer.slope.shape == ((3,) if per_feature else ())
    layer = layer.replace(slope=layer.slope * jnp.arange(1.0, 4) if per_feature else layer.slope)
    slope = 0.1 * (np.arange(1, 4) if per_feature else 1)
    expected = np.where(np.asarray(x) >= 0, x, slope * np.asarray(x, np.float64))
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize("per_feature", [False, True])
def test_prelu_parity_with_equinox(per_feature):
    x = drawn(3).at[0].set(0.0)
    ours = nn.PReLU.of(per_feature=per_feature).init(KEY, x)
    theirs = eqx.nn.PReLU(ours.slope)
    assert eqx.nn.PReLU().negative_slope == nn.PReLU.of().init(KEY, x).slope
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)

    def loss(layer, x):
        return jnp.sin(layer(x)).sum()

    mine, other = jax.grad(loss, (0, 1))(ours, x), jax.grad(loss, (0, 1))(theirs, x)
    np.testing.assert_allclose(mine[0].slope, other[0].negative_slope, atol=1e-6)
    np.testing.assert_allclose(mine[1], other[1], atol=1e-6)


def test_prelu_refuses_other_features():
    with pytest.raises(InputError, match=r"PReLU takes \[..., features\], but got float32\[\]"):
        nn.PReLU.of(per_feature=True).spec(SPEC(()))
    with pytest.raises(InputError, match=r"PReLU takes \[..., 3\], but got float32\[4\]"):
        nn.PReLU.of(per_feature=True).init(KEY, SPEC(3))(drawn(4))
    assert nn.PReLU.of().init(KEY, SPEC(3))(drawn(2, 2)).shape == (2, 2)
