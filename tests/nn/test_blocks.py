"""Blocks, compared with the compositions in their docstrings."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

TIME, FEATURES = 5, 8
KEY = jax.random.key(0)


def sequence(seed=1):
    return jax.random.normal(jax.random.key(seed), (TIME, FEATURES))


def assert_close(ours, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


# MLP ------------------------------------------------------------------------------------------


def test_an_mlp_and_its_gradients_are_those_of_equinox():
    x = jax.random.normal(jax.random.key(1), (3,))
    mlp = nn.MLP.of((6, 6, 2), jnp.tanh).init(KEY, x)
    theirs = eqx.nn.MLP(3, 2, 6, 2, jnp.tanh, key=jax.random.key(9))
    where = lambda m: [leaf for d in m.layers for leaf in (d.weight, d.bias)]  # noqa: E731
    values = [leaf for d in mlp.layers for leaf in (d.kernel.T, d.bias)]
    theirs = eqx.tree_at(where, theirs, values)
    y, grads = jax.value_and_grad(lambda m, x: jnp.sum(jnp.sin(m(x))), (0, 1))(mlp, x)
    expected, their_grads = eqx.filter_value_and_grad(lambda a: jnp.sum(jnp.sin(a[0](a[1]))))(
        (theirs, x)
    )
    ours = [leaf for d in grads[0].layers for leaf in (d.kernel.T, d.bias)]
    assert_close((y, grads[1], ours), (expected, their_grads[1], where(their_grads[0])))


def test_an_mlp_takes_any_leading_axes_and_options_reach_all_layers():
    mlp = nn.MLP.of((6, 2)).init(KEY, jnp.ones((4, 3)))
    xs = jax.random.normal(KEY, (4, 3))
    first, second = mlp.layers
    assert_close(mlp(xs), second(jax.nn.relu(first(xs))))
    assert mlp.spec(xs) == ox.ArraySpec((4, 2))
    bare = nn.MLP.of((6, 2), use_bias=False, dtype=jnp.bfloat16).init(KEY, xs)
    assert bare(xs).dtype == jnp.bfloat16
    assert [d.bias for d in bare.layers] == [None, None]
    narrow = nn.MLP.of((6, 2), param_dtype=jnp.bfloat16).init(KEY, xs)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("bfloat16")}
    one = nn.MLP.of((2,)).init(KEY, xs)
    assert_close(one(xs), one.layers[0](xs))


# TransformerBlock -----------------------------------------------------------------------------


def transformer(mlp_features=(16, FEATURES), norm=None, dropout=0.0, norm_first=None, **options):
    attention = nn.MultiHeadAttention.of(2, **options)
    chosen = {} if norm is None else {"norm": norm}
    chosen |= {} if norm_first is None else {"norm_first": norm_first}
    mlp = nn.MLP.of(mlp_features, jax.nn.gelu)
    return nn.TransformerBlock.of(attention, mlp, dropout=dropout, **chosen)


def by_hand(block, x, mask=None):
    if not block.norm_first:
        x = block.attention_norm(x + block.attention(x, mask=mask))
        return block.mlp_norm(x + block.mlp(x))
    x = x + block.attention(block.attention_norm(x), mask=mask)
    return x + block.mlp(block.mlp_norm(x))


@pytest.mark.parametrize("norm", [None, nn.LayerNorm.of()])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm_first", [None, False])
def test_a_block_is_its_parts(norm, causal, norm_first):
    template = transformer(norm=norm, causal=causal, norm_first=norm_first)
    block, x = template.init(KEY, sequence()), sequence(2)
    assert block.norm_first is (norm_first is None)
    assert type(block.mlp_norm).__name__ == ("RMSNorm" if norm is None else "LayerNorm")
    assert_close(block(x), by_hand(block, x))
    mask = jnp.tril(jnp.ones((TIME, TIME), bool), -1) | jnp.eye(TIME, dtype=bool)
    mask = mask.at[3, 1].set(False)
    assert_close(jax.jit(ox.call)(block, x, mask=mask), by_hand(block, x, mask))
    leaves = jax.tree.leaves(jax.grad(lambda b: jnp.sum(jnp.sin(b(x))))(block))
    expected = jax.tree.leaves(jax.grad(lambda b: jnp.sum(jnp.sin(by_hand(b, x))))(block))
    assert_close(leaves, expected)


def test_dropout_after_both_parts_while_training():
    block, x = transformer(dropout=0.5).init(KEY, sequence()), sequence(2)
    assert_close(block(x, training=False), by_hand(block, x))
    rng = jax.random.key(3)
    y = block(x, training=True, rng=rng)
    np.testing.assert_array_equal(y, block(x, training=True, rng=rng))
    assert float(jnp.abs(y - block(x, training=True, rng=jax.random.key(4))).max()) > 1e-3
    # Each part dropped alone: what is left of the sum is the input, or the input and twice it.
    silent = jax.tree.map(jnp.zeros_like, block.mlp)
    added = block.replace(mlp=silent)(x, training=True, rng=rng) - x
    whole = block.attention(block.attention_norm(x))
    dropped = jnp.abs(added) < 1e-6
    assert_close(added, jnp.where(dropped, 0.0, 2 * whole))
    assert 0.2 < float(dropped.mean()) < 0.8
    without = block.replace(attention=jax.tree.map(jnp.zeros_like, block.attention))
    others = jnp.abs(without(x, training=True, rng=rng) - x) < 1e-6
    assert 0.2 < float(others.mean()) < 0.8 and bool((others != dropped).any())
    with pytest.raises(TypeError, match=r"Dropout at 'dropout' needs `rng`"):
        block(x, training=True)


def test_blocks_train_in_a_batch_and_without_dropout_need_no_keyword():
    template = transformer(causal=True) >> transformer(causal=True) >> nn.RMSNorm.of()
    model, batch = template.init(KEY, sequence()), jnp.stack([sequence(1), sequence(2)])
    ys = jax.vmap(model)(batch)
    for y, x in zip(ys, batch, strict=True):
        assert_close(y, model.layers[2](by_hand(model.layers[1], by_hand(model.layers[0], x))))


def test_norms_after_the_sums():
    """The output of a block is normalized, in the dtype of its input."""
    block = transformer(norm=nn.LayerNorm.of(), norm_first=False).init(KEY, sequence())
    y = block(sequence(2))
    np.testing.assert_allclose(y.mean(-1), jnp.zeros(TIME), atol=1e-5)
    np.testing.assert_allclose(y.std(-1), jnp.ones(TIME), atol=1e-3)
    narrow = transformer(norm_first=False).init(KEY, sequence())
    with jax.numpy_dtype_promotion("standard"):
        assert narrow(sequence(2).astype(jnp.bfloat16)).dtype == jnp.bfloat16
    zeros = jax.tree.map(jnp.zeros_like, (block.attention, block.mlp))
    plain = block.replace(attention=zeros[0], mlp=zeros[1])
    np.testing.assert_allclose(plain(y), y, atol=1e-3)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("chunks", [[1] * TIME, [2, 3]])
def test_blocks_decode_with_a_cache(chunks, norm_first):
    options = {"causal": True, "rotary_base": 100.0, "kv_heads": 1, "norm_first": norm_first}
    model = (transformer(**options) >> transformer(**options)).init(KEY, sequence())
    decoder = model.replace(layers=tuple(block.cached(TIME) for block in model.layers))
    x, start, ys = sequence(2), 0, []
    for size in chunks:
        y, decoder = jax.jit(ox.call_and_update)(decoder, x[start : start + size])
        ys.append(y)
        start += size
    assert_close(jnp.concatenate(ys), model(x))
    assert [int(block.attention.length) for block in decoder.layers] == [TIME, TIME]


def test_the_sums_have_the_dtype_of_the_input():
    attention = nn.MultiHeadAttention.of(2, dtype=jnp.bfloat16)
    mlp = nn.MLP.of((16, FEATURES), dtype=jnp.bfloat16)
    block, x = nn.TransformerBlock.of(attention, mlp).init(KEY, sequence()), sequence()
    assert block(x).dtype == jnp.float32
    exact = transformer().init(KEY, sequence())
    layers = zip(exact.mlp.layers, block.mlp.layers, strict=True)
    assert_close(
        [a.kernel - b.kernel for a, b in layers],
        [np.zeros_like(d.kernel) for d in exact.mlp.layers],
    )
    np.testing.assert_allclose(block(x), exact.replace(mlp=relu(exact.mlp))(x), atol=0.1)


def relu(mlp):
    return mlp.replace(activation=jax.nn.relu)


# ResNetBlock ----------------------------------------------------------------------------------


def convolved(xs, kernel, strides):
    axes = "NHWC", "HWIO", "NHWC"
    return lax.conv_general_dilated(xs, kernel, strides, "SAME", dimension_numbers=axes)


def normalized(ys):
    mean = ys.mean((0, 1, 2), keepdims=True)
    return (ys - mean) / jnp.sqrt(jnp.square(ys - mean).mean((0, 1, 2), keepdims=True) + 1e-5)


def resnet_by_hand(kernels, xs, strides):
    first, second, *around = kernels
    ys = jax.nn.relu(normalized(convolved(xs, first, strides)))
    ys = normalized(convolved(ys, second, (1, 1)))
    return jax.nn.relu(ys + (normalized(convolved(xs, around[0], strides)) if around else xs))


CASES = {"as it is": (3, 1, 0), "more features": (5, 1, 1), "strides": (3, (2, 2), 1)}


@pytest.mark.parametrize("case", CASES)
def test_a_resnet_block_and_its_gradients_are_those_of_the_formula(case):
    features, strides, around = CASES[case]
    xs = jax.random.normal(jax.random.key(1), (4, 6, 6, 3))
    block = nn.ResNetBlock.of(features, strides).init(KEY, xs[0])
    assert (block.shortcut is not None) == bool(around)
    steps = strides if isinstance(strides, tuple) else (1, 1)

    def kernels_of(block):
        convs = [block.body.layers[0], block.body.layers[3]]
        convs += [] if block.shortcut is None else [block.shortcut.layers[0]]
        assert all(conv.bias is None for conv in convs)
        return [conv.kernel for conv in convs]

    def train(block, xs):
        run = jax.vmap(lambda x: block.call_and_update(x, training=True), out_axes=(0, None))
        return run(xs)

    def loss(block, xs):
        ys, new = train(block, xs)
        return jnp.sum(jnp.sin(ys)), (ys, new)

    def expected(kernels, xs):
        ys = resnet_by_hand(kernels, xs, steps)
        return jnp.sum(jnp.sin(ys)), ys

    (_, (ys, new)), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(block, xs)
    (_, theirs), their_grads = jax.value_and_grad(expected, (0, 1), has_aux=True)(
        kernels_of(block), xs
    )
    assert_close(ys, theirs)
    for ours, other in zip(
        (*kernels_of(grads[0]), grads[1]), (*their_grads[0], their_grads[1]), strict=True
    ):
        np.testing.assert_allclose(ours, other, atol=1e-4)  # sums over 144 places
    mean = convolved(xs, block.body.layers[0].kernel, steps).mean((0, 1, 2))
    np.testing.assert_allclose(new.body.layers[1].mean, 0.01 * mean, atol=1e-5)
    assert new(xs[0], training=False).shape == ys[0].shape


def test_a_resnet_block_of_another_norm_and_dtype():
    x = jax.random.normal(KEY, (6, 6, 3))
    norm = nn.LayerNorm.of(dtype=jnp.bfloat16)
    block = nn.ResNetBlock.of(4, 2, norm=norm, dtype=jnp.bfloat16).init(KEY, x)
    assert block(x).dtype == jnp.bfloat16 and block(x).shape == (3, 3, 4)
    assert block.body.layers[0].kernel.dtype == jnp.float32
    sequence_block = nn.ResNetBlock.of(4, norm=nn.LayerNorm.of()).init(KEY, jnp.ones((7, 3)))
    assert sequence_block(jnp.ones((7, 3))).shape == (7, 4)


# Errors ---------------------------------------------------------------------------------------


def raises(kind, text):
    return pytest.raises(kind, match=text)


def test_wrong_configurations():
    mlp, attention = nn.MLP.of((4,)), nn.MultiHeadAttention.of(2)
    with raises(ValueError, r"MLP: `features` is a tuple, .* got 3"):
        nn.MLP.of(3)
    with raises(ValueError, r"MLP: `features` is a tuple, .* got \(\)"):
        nn.MLP.of(())
    with raises(ValueError, r"MLP: `features` must be a positive integer, got 0"):
        nn.MLP.of((3, 0))
    with raises(TypeError, r"MLP: `activation` is a function, got 'relu'"):
        nn.MLP.of((3,), "relu")
    with raises(TypeError, r"part 0 of TransformerBlock is the class MultiHeadAttention"):
        nn.TransformerBlock.of(nn.MultiHeadAttention, mlp)
    with raises(ValueError, r"TransformerBlock: `dropout` must be in \[0, 1\), got 1"):
        nn.TransformerBlock.of(attention, mlp, dropout=1)
    with raises(TypeError, r"TransformerBlock makes two norms, so `norm` is a template"):
        nn.TransformerBlock.of(attention, mlp, norm=jnp.tanh)
    with raises(ValueError, r"ResNetBlock: `features` must be a positive integer, got 0"):
        nn.ResNetBlock.of(0)
    with raises(ValueError, r"ResNetBlock: `strides` must be a positive integer, got 0"):
        nn.ResNetBlock.of(2, (1, 0))
    with raises(TypeError, r"ResNetBlock makes several norms, so `norm` is a template"):
        nn.ResNetBlock.of(2, norm=jnp.tanh)


def test_wrong_inputs():
    with raises(ValueError, r"MLP takes \[..., in\], but got float32\[\]"):
        nn.MLP.of((3,)).init(KEY, 1.0)
    text = r"TransformerBlock takes a part `mlp` of the shape of float32\[5,8\], but got float32"
    with raises(ValueError, text + r"\[5,7\]"):
        transformer((16, 7)).init(KEY, sequence())
    with raises(ValueError, r"MultiHeadAttention at 'attention' takes \[time, features\]"):
        transformer().init(KEY, jnp.ones(8))
    with raises(ValueError, r"Dense at 'layers\[0\]' takes \[..., 3\], but got float32\[4\]"):
        nn.MLP.of((3,)).init(KEY, jnp.ones(3))(jnp.ones(4))
    with raises(ValueError, r"MultiHeadAttention at 'attention' takes a mask bool\[5,5\]"):
        transformer().init(KEY, sequence())(sequence(), jnp.ones((5, 4), bool))
    with raises(ValueError, r"only causal attention can be decoded"):
        transformer().init(KEY, sequence()).cached(4)
    with raises(ValueError, r"Conv at 'body.layers\[0\]' takes"):
        nn.ResNetBlock.of(2).init(KEY, jnp.ones(3))
