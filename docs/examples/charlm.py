"""Train a small transformer on the docstrings of Python's standard library, and let it write.

It writes one character at a time, with the keys and values of the past as state of the model inside
`jax.lax.scan`; and the program checks that this gives what the whole text at once would have given.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

import oryxstate as ox
from oryxstate import nn

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
LENGTH, BATCH_SIZE = 96, 16
FEATURES, HEADS, BLOCKS = 96, 4, 3
PEAK_LEARNING_RATE = 3e-3

# The text -----------------------------------------------------------------------------------------


def docstrings(folder: Path) -> str:
    """All docstrings of the modules in a folder, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.append(ast.get_docstring(node) or "")
    text = "\n\n".join(filter(None, found))
    return "".join(c for c in text if c in CHARACTERS)


def encode(text: str) -> Int[np.ndarray, " characters"]:
    return np.array([CHARACTERS.index(c) for c in text], np.int32)


def decode(tokens: Any) -> str:
    return "".join(CHARACTERS[int(t)] for t in tokens)


# The model ----------------------------------------------------------------------------------------

ATTENTION = nn.MultiHeadAttention.of(HEADS, causal=True, rotary_base=10000.0)
NETWORK = nn.MLP.of((4 * FEATURES, FEATURES), jax.nn.gelu)
BLOCK = nn.TransformerBlock.of(ATTENTION, NETWORK, dropout=0.1)
MODEL = (
    nn.Embedding.of(len(CHARACTERS), FEATURES)
    >> nn.Repeat.of(BLOCK, BLOCKS, remat=True)
    >> nn.RMSNorm.of()
    >> nn.Dense.of(len(CHARACTERS))
)


def with_cache(model: Any, max_length: int) -> Any:
    """The model that decodes step by step: each block has a cache of its own, as state."""
    first, blocks, *rest = model.layers
    cached = jax.vmap(lambda block: block.cached(max_length))(blocks.layers)
    return model.replace(layers=(first, blocks.replace(layers=cached), *rest))


# Training -----------------------------------------------------------------------------------------


def make_train_step(optimizer: optax.GradientTransformation) -> Any:
    @jax.jit
    def train_step(model: Any, optimizer_state: Any, windows: Array, key: Array) -> Any:
        def objective(model: Any) -> Array:
            def logits_of(window: Array) -> Array:
                return model(window[:-1], training=True, rng=key)

            logits = jax.vmap(logits_of)(windows)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
            return losses.mean()

        loss, gradient = ox.value_and_grad(objective)(model)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, model)
        return eqx.apply_updates(model, updates), optimizer_state, loss

    return train_step


def train(text: np.ndarray, steps: int, seed: int) -> tuple[Any, list[float]]:
    """A model, and its loss in nats per character at each step."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed))
    model = ox.init(MODEL)(init_key, ox.ArraySpec(LENGTH, "int32"))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, warmup_steps=max(1, steps // 10), decay_steps=max(2, steps)
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    state, step = optimizer.init(ox.partition(model)[0]), make_train_step(optimizer)
    draw, losses = np.random.default_rng(seed), []
    for i, key in enumerate(jax.random.split(dropout_key, steps)):
        starts = draw.integers(0, len(text) - LENGTH - 1, BATCH_SIZE)
        windows = text[starts[:, None] + np.arange(LENGTH + 1)]
        model, state, loss = step(model, state, windows, key)
        losses.append(float(loss))
        if (i + 1) % max(1, steps // 10) == 0:
            print(f"step {i + 1:>5}  loss {np.mean(losses[-20:]):.3f} nats per character")
    return model, losses


# Writing ------------------------------------------------------------------------------------------


@eqx.filter_jit
def write(
    model: Any, prompt: Int[Array, " start"], count: int, key: Array, temperature: float
) -> tuple[Int[Array, " count"], Float[Array, "count characters"]]:
    """The next characters, one at a time, and the logits that they were drawn from."""
    decoder = with_cache(model, len(prompt) + count)
    logits, decoder = decoder.call_and_update(prompt, training=False)

    def turn(carry: Any, key: Array) -> Any:
        decoder, logits = carry
        token = jax.random.categorical(key, logits / temperature)
        following, decoder = decoder.call_and_update(token[None], training=False)
        return (decoder, following[-1]), (token.astype(jnp.int32), logits)

    return lax.scan(turn, (decoder, logits[-1]), jax.random.split(key, count))[1]


@eqx.filter_jit
def write_without_cache(
    model: Any, prompt: Array, count: int, key: Array, temperature: float
) -> Any:
    """The same, computing the whole past again for each character."""
    room = jnp.zeros(len(prompt) + count, jnp.int32).at[: len(prompt)].set(prompt)

    def turn(tokens: Array, each: Any) -> Any:
        i, key = each
        logits = model(tokens, training=False)[i - 1]
        token = jax.random.categorical(key, logits / temperature).astype(jnp.int32)
        return tokens.at[i].set(token), (token, logits)

    steps = jnp.arange(len(prompt), len(prompt) + count)
    return lax.scan(turn, room, (steps, jax.random.split(key, count)))[1]


def seconds_of(function: Any, *args: Any) -> float:
    """The least of three runs, after one that compiles."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return min(times)


def report(model: Any, count: int, seed: int) -> dict[str, float]:
    """Print what the model writes, and how decoding with the cache compares."""
    prompt = jnp.asarray(encode("Return "))
    args = model, prompt, count, jax.random.key(seed), 0.7
    tokens, logits = write(*args)
    print(f"\n{decode(prompt)}{decode(tokens)}\n")
    at_once = model(jnp.concatenate([prompt, tokens[:-1]]), training=False)[len(prompt) - 1 :]
    difference = float(jnp.abs(logits - at_once).max())
    ratio = seconds_of(write_without_cache, *args) / seconds_of(write, *args)
    print(f"{count} characters, one at a time: logits differ by {difference:.1e} from the text at")
    print(f"once; {ratio:.1f} times as fast as without the cache.")
    return {"difference": difference, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--count", type=int, default=400, help="characters to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.steps < 1 or options.count < 1 or options.seed < 0:
        parser.error("--steps and --count must be positive, --seed must not be negative")
    text = encode(docstrings(Path(sysconfig.get_paths()["stdlib"])))
    print(f"{len(text):,} characters of docstrings, {len(CHARACTERS)} different ones")
    model, losses = train(text, options.steps, options.seed)
    print(f"loss {losses[0]:.3f} at first, {np.mean(losses[-20:]):.3f} in the end")
    report(model, options.count, options.seed)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("charlm.py: stopped")
