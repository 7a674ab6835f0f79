"""Norms of one example, compared with their formulas and with Equinox."""

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
FLOATS = [("float32", 1e-5), ("float16", 4e-3), ("bfloat16", 3e-2)]


def drawn(*shape, seed=1, offset=0.0, dtype="float32"):
    return (offset + jax.random.normal(jax.random.key(seed), shape)).astype(dtype)


def made(template, x):
    """A layer with parameters that are neither ones nor zeros."""
    layer = template.init(KEY, x)
    leaves, treedef = jax.tree.flatten(layer)
    leaves = [drawn(*p.shape, seed=i + 5).astype(p.dtype) for i, p in enumerate(leaves)]
    return jax.tree.unflatten(treedef, leaves)


def along(vector, axes, ndim):
    others = tuple(a for a in range(-ndim, 0) if a not in axes)
    return np.expand_dims(np.asarray(vector, np.float64), others)


def formula(layer, x):
    """The normalization of every layer here, in float64."""
    x = np.asarray(x, np.float64)
    axes = getattr(layer, "axes", (-1,))
    groups = getattr(layer, "groups", None)
    y = x if groups is None else x.reshape(*x.shape[:-1], groups, -1)
    over = axes if groups is None else tuple(i for i in range(y.ndim) if i != y.ndim - 2)
    mean = 0 if isinstance(layer, nn.RMSNorm) else y.mean(over, keepdims=True)
    y = (y - mean) / np.sqrt(((y - mean) ** 2).mean(over, keepdims=True) + layer.epsilon)
    y = y.reshape(x.shape)
    if layer.scale is not None:
        y = y * along(layer.scale, axes, x.ndim)
    bias = getattr(layer, "bias", None)
    return y if bias is None else y + along(bias, axes, x.ndim)


LAYERS = {
    "LayerNorm": (nn.LayerNorm.of, (3, 6)),
    "LayerNorm of two axes": (lambda **o: nn.LayerNorm.of((2, -3), **o), (3, 4, 5)),
    "LayerNorm of the first axis": (lambda **o: nn.LayerNorm.of(0, **o), (3, 4)),
    "RMSNorm": (nn.RMSNorm.of, (3, 6)),
    "RMSNorm of two axes": (lambda **o: nn.RMSNorm.of((-1, -2), **o), (3, 4, 5)),
    "GroupNorm": (lambda **o: nn.GroupNorm.of(2, **o), (3, 4, 6)),
    "GroupNorm of a vector": (lambda **o: nn.GroupNorm.of(3, **o), (6,)),
    "InstanceNorm": (nn.InstanceNorm.of, (3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"epsilon": 0.5}, {"use_scale": False}])
def test_the_formula(name, options):
    of, shape = LAYERS[name]
    x = drawn(*shape, offset=2.0)
    layer = made(of(**options), x)
    np.testing.assert_allclose(layer(x), formula(layer, x), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_no_parameters_at_all(name):
    of, shape = LAYERS[name]
    options = {} if "RMSNorm" in name else {"use_bias": False}
    layer = of(use_scale=False, **options).init(KEY, drawn(*shape))
    assert jax.tree.leaves(layer) == []
    np.testing.assert_allclose(layer(drawn(*shape)), formula(layer, drawn(*shape)), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_scale_1_and_bias_0_at_first(name):
    of, shape = LAYERS[name]
    layer = of(param_dtype="bfloat16").init(KEY, drawn(*shape))
    assert (layer.scale == 1).all() and layer.scale.dtype == "bfloat16"
    if hasattr(layer, "bias"):
        assert (layer.bias == 0).all() and layer.bias.shape == layer.scale.shape


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype, tolerance", FLOATS)
def test_statistics_are_precise_in_every_dtype(name, dtype, tolerance):
    of, shape = LAYERS[name]
    shape = (*shape[:-1], shape[-1] * 20)
    x = drawn(*shape, offset=1000.0, dtype=dtype)  # a sum that overflows float16
    layer = made(of(param_dtype=dtype), x)
    y = layer(x)
    assert y.dtype == dtype
    largest = np.abs(formula(layer, x)).max()
    # float32 has four digits left of numbers that differ by a thousandth
    tolerance = 2e-3 if dtype == "float32" else tolerance
    np.testing.assert_allclose(
        np.asarray(y, np.float64), formula(layer, x), atol=largest * tolerance
    )


@pytest.mark.parametrize("name", [name for name in LAYERS if "RMSNorm" not in name])
def test_the_variance_is_from_a_second_pass(name):
    """With mean(x**2) - mean(x)**2 nothing would be left of it in float32."""
    of, shape = LAYERS[name]
    x = drawn(*shape) + 1e4
    layer = of().init(KEY, x)
    np.testing.assert_allclose(layer(x), formula(layer, x), atol=0.02)


@pytest.mark.parametrize("name", LAYERS)
def test_computing_in_another_dtype_than_the_parameters(name):
    of, shape = LAYERS[name]
    x = drawn(*shape, dtype="bfloat16")
    layer = made(of(dtype="bfloat16"), x)
    assert layer.scale.dtype == "float32" and layer(x).dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(layer(x), np.float64), formula(layer, x), atol=0.05)


def first(x):
    """Channels first, as Equinox has them."""
    return jnp.moveaxis(x, -1, 0)


def in_equinox(name, x):
    """Equinox's layer for the same input, and what it calls it with and returns."""
    size = x.shape[-1]
    if name == "LayerNorm":
        return eqx.nn.LayerNorm(x.shape[-1:]), jax.vmap
    if name == "RMSNorm":
        return eqx.nn.RMSNorm(x.shape[-1:], use_bias=False), jax.vmap
    groups = 2 if name == "GroupNorm" else size
    return eqx.nn.GroupNorm(groups, size), lambda f: lambda x: jnp.moveaxis(f(first(x)), 0, -1)


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm"])
def test_parity_with_equinox(name):
    of, shape = LAYERS[name]
    x, weights = drawn(*shape, offset=0.5), drawn(*shape, seed=2)
    ours = made(of(), x)
    theirs, lifted = in_equinox(name, x)
    assert theirs.eps == ours.epsilon
    theirs = eqx.tree_at(lambda layer: layer.weight, theirs, ours.scale)
    if name != "RMSNorm":
        theirs = eqx.tree_at(lambda layer: layer.bias, theirs, ours.bias)
    np.testing.assert_allclose(ours(x), lifted(theirs)(x), atol=1e-5)

    def loss(both, run):
        return (weights * jnp.sin(run(both[0])(both[1]))).sum()

    mine = jax.grad(loss)((ours, x), lambda layer: layer)
    other = eqx.filter_grad(loss)((theirs, x), lifted)
    np.testing.assert_allclose(mine[1], other[1], atol=1e-5)
    np.testing.assert_allclose(mine[0].scale, other[0].weight, atol=1e-5)
    if name != "RMSNorm":
        np.testing.assert_allclose(mine[0].bias, other[0].bias, atol=1e-5)


def test_instance_norm_is_group_norm_with_groups_of_one():
    x = drawn(3, 4, 5)
    groups = nn.GroupNorm.of(5).init(KEY, x)
    np.testing.assert_array_equal(nn.InstanceNorm.of().init(KEY, x)(x), groups(x))


def test_a_layer_of_the_last_axis_takes_any_other_axes():
    layer = nn.LayerNorm.of().init(KEY, drawn(6))
    np.testing.assert_allclose(layer(drawn(2, 3, 6)), formula(layer, drawn(2, 3, 6)), atol=1e-5)


def test_a_model_is_the_same_for_each_example_of_a_vmap():
    x = drawn(5, 3, 6)
    for template in (nn.LayerNorm.of(), nn.GroupNorm.of(2), nn.InstanceNorm.of()):
        layer = made(template, x[0])
        together = jax.vmap(layer)(x)
        np.testing.assert_allclose(together, jnp.stack([layer(e) for e in x]), atol=1e-6)


def test_gradients_of_a_constant_input_are_finite():
    x = jnp.ones((3, 4))
    for template in (nn.LayerNorm.of(), nn.RMSNorm.of(), nn.GroupNorm.of(2)):
        layer = template.init(KEY, x)
        assert jnp.isfinite(jax.grad(lambda x, layer=layer: layer(x).sum())(0 * x)).all()


SPEC = ox.ArraySpec
MADE = [
    (nn.LayerNorm.of(), SPEC(()), "different axes [-1]"),
    (nn.LayerNorm.of((0, 3)), SPEC((2, 3)), "different axes [0, 3]"),
    (nn.LayerNorm.of((-1, 1)), SPEC((2, 3)), "different axes [-1, 1]"),
    (nn.LayerNorm.of(), SPEC(3, "int32"), "takes floats, but got int32[3]"),
    (nn.RMSNorm.of(-3), SPEC((2, 3)), "RMSNorm takes"),
    (nn.GroupNorm.of(4), SPEC((2, 6)), "[..., a multiple of 4], but got float32[2,6]"),
    (nn.GroupNorm.of(4), SPEC(()), "a multiple of 4"),
    (nn.GroupNorm.of(4), SPEC(4), "several elements to average over in each group"),
    (nn.GroupNorm.of(2), SPEC(4, "int32"), "floats"),
    (nn.InstanceNorm.of(), SPEC(4), "with an axis to average over"),
    (nn.InstanceNorm.of(), SPEC((1, 4)), "several elements"),
    (nn.InstanceNorm.of(), (SPEC((2, 4)), SPEC(2)), "one array"),
]


@pytest.mark.parametrize("template, spec, text", MADE)
def test_inputs_that_no_layer_can_be_made_for(template, spec, text):
    specs = spec if isinstance(spec, tuple) else (spec,)
    with pytest.raises(InputError) as error:
        template.spec(*specs)
    assert text in str(error.value)


CALLED = [
    (nn.LayerNorm.of(), (3,), (4,), "LayerNorm takes floats [..., 3], but got float32[4]."),
    (nn.LayerNorm.of((-3, -1)), (2, 3, 4), (5, 3, 4), "floats [..., 2, _, 4], but got"),
    (nn.LayerNorm.of((-3, -1)), (2, 3, 4), (2, 4), "floats [..., 2, _, 4], but got float32[2,4]."),
    (nn.RMSNorm.of(-2), (2, 3), (4, 3), "RMSNorm takes floats [..., 2, _], but got float32[4,3]."),
    (nn.GroupNorm.of(2), (5, 4), (5, 6), "floats of one example, [_, 4], but got float32[5,6]."),
    (nn.GroupNorm.of(2), (5, 4), (2, 5, 4), "one example, [_, 4], but got float32[2,5,4]."),
    (
        nn.GroupNorm.of(2, use_scale=False, use_bias=False),
        (5, 4),
        (5, 5),
        "[_, a multiple of 2], but got float32[5,5].",
    ),
    (nn.InstanceNorm.of(), (5, 4), (4,), "InstanceNorm takes floats of one example, [_, 4]"),
]


@pytest.mark.parametrize("template, shape, given, text", CALLED)
def test_inputs_that_a_layer_does_not_take(template, shape, given, text):
    layer = template.init(KEY, SPEC(shape))
    with pytest.raises(InputError) as error:
        layer(drawn(*given))
    assert text in str(error.value)


def test_integers_are_refused():
    with pytest.raises(InputError, match=r"floats \[..., 3\], but got int32\[3\]"):
        nn.LayerNorm.of().init(KEY, SPEC(3))(jnp.arange(3))


@pytest.mark.parametrize("axes", [(), 1.5, (0, "1")])
@pytest.mark.parametrize("layer", [nn.LayerNorm, nn.RMSNorm])
def test_axes_are_integers(layer, axes):
    with pytest.raises(ValueError, match=f"{layer.__name__}: `axes` must be an integer or several"):
        layer.of(axes)


@pytest.mark.parametrize("groups", [0, -1, 1.0, True])
def test_groups_are_positive(groups):
    with pytest.raises(ValueError, match="GroupNorm: `groups` must be a positive integer, got"):
        nn.GroupNorm.of(groups)
