"""A small decoder: trained on whole sequences, then writing by tokens with a cache as state."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import oryxstate as ox
from oryxstate import nn

VOCABULARY, FEATURES, LENGTH, BLOCKS = 7, 16, 12, 2
BLOCK = nn.TransformerBlock.of(
    nn.MultiHeadAttention.of(2, causal=True, rotary_base=100.0),
    nn.MLP.of((32, FEATURES), jax.nn.gelu),
    dropout=0.1,
)


class Decoder(ox.Module):
    embedding: nn.Embedding
    blocks: list[nn.TransformerBlock]
    norm: nn.RMSNorm

    def call(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.embedding.attend(self.norm(x))

    def cached(self, max_length):
        return self.replace(blocks=[block.cached(max_length) for block in self.blocks])


def new_decoder():
    keys = jax.random.split(jax.random.key(0), BLOCKS + 1)
    embedding = ox.init(nn.Embedding.of(VOCABULARY, FEATURES))(keys[0], ox.ArraySpec(LENGTH, int))
    x = ox.ArraySpec((LENGTH, FEATURES))
    return Decoder(
        embedding=embedding,
        blocks=[ox.init(BLOCK)(key, x) for key in keys[1:]],
        norm=ox.init(nn.RMSNorm.of())(keys[0], x),
    )


def loss(model, sequences, key):
    logits = ox.batch_call(model, sequences[:, :-1], training=True, rng=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, sequences[:, 1:]).mean()


@functools.cache
def trained():
    """A decoder that has learned to count by ones, twos or threes, modulo the vocabulary."""
    draw, optimizer, steps = np.random.default_rng(0), optax.adam(0.01), 150
    first, by = draw.integers(0, VOCABULARY, steps * 16), draw.integers(1, 4, steps * 16)
    sequences = counting(first, by, LENGTH).reshape(steps, 16, LENGTH)

    def step(carry, inputs):
        model, state = carry
        value, gradient = ox.value_and_grad(loss)(model, *inputs)
        updates, state = optimizer.update(gradient, state)
        return (eqx.apply_updates(model, updates), state), value

    @jax.jit
    def train(model, sequences, keys):
        state = optimizer.init(ox.partition(model)[0])
        (model, _), losses = jax.lax.scan(step, (model, state), (sequences, keys))
        return model, losses

    keys = jax.random.split(jax.random.key(1), steps)
    model, losses = train(jax.jit(new_decoder)(), sequences, keys)
    assert losses[-10:].mean() < 0.5
    return model


def counting(first, by, length):
    return (first[:, None] + by[:, None] * np.arange(length)) % VOCABULARY


def greedy(decoder, prompt, count):
    """The next tokens, and the decoder that has read the prompt and all but the last of them."""
    logits, decoder = decoder.call_and_update(prompt, training=False)

    def turn(carry, _):
        decoder, token = carry
        logits, decoder = decoder.call_and_update(token[None], training=False)
        return (decoder, logits[-1].argmax()), token

    (decoder, _), tokens = jax.lax.scan(turn, (decoder, logits[-1].argmax()), None, length=count)
    return tokens, decoder


def test_token_by_token_is_the_whole_sequence_at_once():
    model, tokens = trained(), jnp.asarray(counting(np.array([3]), np.array([2]), LENGTH)[0])

    def step(decoder, token):
        logits, decoder = decoder.call_and_update(token[None], training=False)
        return decoder, logits[0]

    decoder, logits = jax.jit(lambda d, t: jax.lax.scan(step, d, t))(model.cached(LENGTH), tokens)
    at_once = jax.jit(lambda tokens: model(tokens, training=False))(tokens)
    np.testing.assert_allclose(logits, at_once, atol=1e-4)
    assert [int(block.attention.length) for block in decoder.blocks] == [LENGTH] * BLOCKS


def test_it_writes_what_it_would_write_without_a_cache():
    model, prompt = trained(), jnp.array([1, 3, 5])
    tokens, _ = jax.jit(greedy, static_argnums=2)(model.cached(LENGTH), prompt, LENGTH - 3)
    logits_of = jax.jit(lambda tokens: model(tokens, training=False))
    written = jnp.zeros(LENGTH, int).at[:3].set(prompt)
    for i in range(3, LENGTH):  # what stands after a token does not matter to it
        written = written.at[i].set(logits_of(written)[i - 1].argmax())
    np.testing.assert_array_equal(tokens, written[3:])
    np.testing.assert_array_equal(written, counting(np.array([1]), np.array([2]), LENGTH)[0])


def test_a_batch_has_a_cache_for_each_example():
    model, prompts = trained(), jnp.array([[0, 1, 2], [6, 1, 3]])
    step = jax.jit(lambda decoder, tokens: decoder.call_and_update(tokens, training=False))
    logits, batch = step(ox.per_example(model.cached(LENGTH), 2), prompts)
    both, _ = step(batch, logits[:, -1:].argmax(-1))
    for i, prompt in enumerate(prompts):
        logits, decoder = step(model.cached(LENGTH), prompt)
        alone, _ = step(decoder, logits[-1:].argmax(-1))
        np.testing.assert_allclose(both[i], alone, atol=1e-4)
