"""Decoding with a cache, compared with attention to all steps at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from attentions import KINDS, TIME, assert_close, kinds, made, sequence
from jax import lax

import oryxstate as ox
from oryxstate import nn


def causal(kind):
    return made(causal=True, **KINDS[kind])


@kinds
@pytest.mark.parametrize("chunks", [[1] * TIME, [TIME], [2, 1, 3], [4, 2]])
@pytest.mark.parametrize("max_length", [TIME, TIME + 3])
def test_decoding_in_chunks_is_full_causal_attention(kind, chunks, max_length):
    layer, x, start, ys = causal(kind), sequence(), 0, []
    cached = layer.cached(max_length)
    for size in chunks:
        y, cached = cached.call_and_update(x[start : start + size])
        ys.append(y)
        start += size
    assert_close(jnp.concatenate(ys), layer(x))
    assert int(cached.length) == TIME and cached.length.dtype == jnp.int32
    assert not cached.keys[TIME:].any() and jnp.abs(cached.keys[:TIME]).min() > 0


class Decoder(ox.Module):
    """A cached layer called in a loop, token by token."""

    attention: nn.CachedAttention
    scanned: bool = ox.static(default=True)

    def call(self, xs):
        if self.scanned:
            return lax.scan(lambda _, x: (None, self.attention(x[None])[0]), None, xs)[1]
        return jnp.concatenate([self.attention(x[None]) for x in xs])


@kinds
@pytest.mark.parametrize("scanned", [False, True])
def test_decoding_in_a_loop_under_jit(kind, scanned):
    layer, x = causal(kind), sequence()
    decoder = Decoder(layer.cached(TIME + 1), scanned)
    first, decoder = jax.jit(ox.call_and_update)(decoder, x[:2])
    rest, decoder = jax.jit(ox.call_and_update)(decoder, x[2:])
    assert_close(jnp.concatenate([first, rest]), layer(x))
    assert int(decoder.attention.length) == TIME


@kinds
@pytest.mark.parametrize("scanned", [False, True])
def test_gradients_of_decoding_are_those_of_full_attention(kind, scanned):
    layer, x = causal(kind), sequence()

    def full(params, x):
        return jnp.sum(jnp.sin(layer.replace(params=params)(x)))

    def decoded(params, x):
        cached = layer.replace(params=params).cached(TIME)
        return jnp.sum(jnp.sin(Decoder(cached, scanned)(x)))

    ours = jax.grad(decoded, (0, 1))(layer.params, x)
    assert_close(ours, jax.grad(full, (0, 1))(layer.params, x), atol=2e-5)


def test_a_batch_decodes_in_a_vmap_around_the_loop():
    layer, batch = causal("rotary"), jnp.stack([sequence(1), sequence(2)])
    ys, decoders = jax.vmap(Decoder(layer.cached(TIME)).call_and_update)(batch)
    assert_close(ys, jnp.stack([layer(x) for x in batch]))
    one_by_one = jax.vmap(lambda d, x: d.call_and_update(x))
    start = jax.vmap(lambda x: Decoder(layer.cached(TIME)).update(x))(batch[:, :4])
    ys, decoders = one_by_one(start, batch[:, 4:])
    assert_close(ys, jnp.stack([layer(x)[4:] for x in batch]))
    assert decoders.attention.length.tolist() == [TIME, TIME]


def test_the_parameters_are_shared_and_the_cache_starts_again():
    layer, x = causal("grouped"), sequence()
    cached = layer.cached(TIME)
    assert jax.tree.structure(cached.params) == jax.tree.structure(layer.params)
    assert cached.query is layer.query and cached.keys.shape == (TIME, 2, 2)
    used = cached.update(sequence(2))
    again = used.replace(length=jnp.array(0, jnp.int32))
    assert_close(again(x[:3]), layer(x[:3]))
    template = nn.CachedAttention.of(nn.MultiHeadAttention.of(4, causal=True), max_length=TIME)
    new = template.init(jax.random.key(7), x)
    assert_close(new(x), nn.MultiHeadAttention.new(as_full(new))(x))


def as_full(cached):
    info = {**cached.info, "causal": True}
    return nn.LayerParams(params=cached.params, info=info)


def test_attention_in_a_model_is_replaced_by_a_map_over_it():
    block = nn.MultiHeadAttention.of(2, causal=True, rotary_base=100.0)
    model = (block >> nn.Dense.of(8) >> block).init(jax.random.key(0), sequence())
    is_attention = lambda node: isinstance(node, nn.MultiHeadAttention)  # noqa: E731
    decoder = jax.tree.map(
        lambda node: node.cached(TIME) if is_attention(node) else node, model, is_leaf=is_attention
    )
    ys = []
    for x in sequence():
        y, decoder = ox.call_and_update(decoder, x[None])
        ys.append(y)
    assert_close(jnp.concatenate(ys), model(sequence()))
    assert [int(decoder.layers[i].length) for i in (0, 2)] == [TIME, TIME]


def test_more_steps_than_there_is_room_for():
    cached = causal("plain").cached(4).update(sequence()[:3])
    text = r"takes \[time, 8\] of at most 1 more steps, since max_length is 4, but got float32\[2,8"
    with pytest.raises(ValueError, match=f"CachedAttention {text}"):
        cached(sequence()[:2])
    with pytest.raises(ValueError, match=f"CachedAttention at 'attention' {text}"):
        ox.call(Holder(cached), sequence()[:2])
    with pytest.raises(ValueError, match=r"at most 4 more steps"):
        jax.jit(ox.call)(cached, sequence()[:5])  # known in spite of the trace
    traced = jax.jit(ox.call_and_update)
    y, cached = traced(cached, sequence()[:1])
    assert jnp.isfinite(y).all()
    y, cached = traced(cached, sequence()[:1])
    assert jnp.isnan(y).all() and int(cached.length) == 5
    ys = Decoder(causal("plain").cached(4))(sequence())
    assert jnp.isfinite(ys[:4]).all() and jnp.isnan(ys[4:]).all()


class Holder(ox.Module):
    attention: nn.CachedAttention

    def call(self, x):
        return self.attention(x)
