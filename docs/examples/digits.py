"""Train a convolutional net with BatchNorm and Dropout on 1,797 handwritten digits.

Running statistics and random keys are state of the layers. Nobody passes them by hand: see how
little `Net.call` and `train_step` say about them.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _digits_arguments import Options, parse
from _digits_data import Digits, load
from _digits_files import write_curves, write_figures
from _digits_screen import Screen
from jaxtyping import Array, Float, Int, Key

import oryxstate as ox

BATCH_SIZE = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2

# The model ----------------------------------------------------------------------------------------


class Conv(ox.Module):
    """A 3x3 convolution that keeps the size of the image."""

    kernel: Float[Array, "3 3 inputs outputs"] = ox.param()

    def call(self, x: Float[Array, "b h w inputs"]) -> Float[Array, "b h w outputs"]:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, self.kernel, window_strides=(1, 1), padding="SAME", dimension_numbers=layout
        )


class BatchNorm(ox.Module):
    """Batch normalization (Ioffe and Szegedy, 2015): its running statistics are state."""

    scale: Float[Array, "c"] = ox.param()
    bias: Float[Array, "c"] = ox.param()
    mean: Float[Array, "c"] = ox.state()
    variance: Float[Array, "c"] = ox.state()
    count: Int[Array, ""] = ox.state()
    momentum: float = ox.static(default=0.95)
    epsilon: float = ox.static(default=1e-5)

    def call(self, x: Float[Array, "b h w c"], *, training: bool) -> Float[Array, "b h w c"]:
        if not training:
            return self.normalize(x, self.mean, self.variance)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        # A plain average of the first batches, then an exponential one: no trace of the start.
        step = jnp.maximum(1 / (self.count + 1), 1 - self.momentum)
        self.assign(
            mean=self.mean + step * (jax.lax.stop_gradient(mean) - self.mean),
            variance=self.variance + step * (jax.lax.stop_gradient(variance) - self.variance),
            count=self.count + 1,
        )
        return self.normalize(x, mean, variance)

    def normalize(self, x: Array, mean: Array, variance: Array) -> Array:
        return (x - mean) * jax.lax.rsqrt(variance + self.epsilon) * self.scale + self.bias


class Dropout(ox.Module):
    """Dropout (Srivastava et al., 2014): its random key is state, split at each call."""

    key: Key[Array, ""] = ox.state()
    rate: float = ox.static()

    def call(self, x: Float[Array, "b n"], *, training: bool) -> Float[Array, "b n"]:
        if not training:
            return x
        key, own = jax.random.split(self.key)
        self.assign(key=key)
        kept = jax.random.bernoulli(own, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


class Dense(ox.Module):
    """An affine map."""

    kernel: Float[Array, "inputs outputs"] = ox.param()
    bias: Float[Array, "outputs"] = ox.param()

    def call(self, x: Float[Array, "b inputs"]) -> Float[Array, "b outputs"]:
        return x @ self.kernel + self.bias


class Block(ox.Module):
    """Convolution, BatchNorm, relu, and the larger of each two by two pixels."""

    conv: Conv
    norm: BatchNorm

    def call(self, x: Float[Array, "b h w inputs"], *, training: bool) -> Array:
        x = jax.nn.relu(self.norm(self.conv(x), training=training))
        b, h, w, c = x.shape
        return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


class Net(ox.Module):
    """Three blocks halve the image until one pixel of features is left."""

    blocks: tuple[Block, ...]
    dropout: Dropout
    readout: Dense

    def call(self, x: Float[Array, "b 8 8 1"], *, training: bool) -> Float[Array, "b 10"]:
        for block in self.blocks:
            x = block(x, training=training)
        x = self.dropout(x.reshape(len(x), -1), training=training)
        return self.readout(x)


def make_net(key: Key[Array, ""], channels: tuple[int, ...] = (1, 32, 64, 128)) -> Net:
    *block_keys, dropout_key, readout_key = jax.random.split(key, len(channels) + 1)
    he, lecun = jax.nn.initializers.he_normal(), jax.nn.initializers.lecun_normal()
    blocks = tuple(
        Block(
            Conv(he(key, (3, 3, inputs, outputs))),
            BatchNorm(
                scale=jnp.ones(outputs),
                bias=jnp.zeros(outputs),
                mean=jnp.zeros(outputs),
                variance=jnp.ones(outputs),
                count=jnp.array(0),
            ),
        )
        for key, inputs, outputs in zip(block_keys, channels[:-1], channels[1:], strict=True)
    )
    readout = Dense(lecun(readout_key, (channels[-1], 10)), jnp.zeros(10))
    return Net(blocks, Dropout(dropout_key, rate=0.3), readout)


# Training -----------------------------------------------------------------------------------------


def score(logits: Float[Array, "b 10"], labels: Int[Array, "b"]) -> tuple[Array, Array]:
    """Mean cross-entropy, and how many of the labels are found."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).sum()


def make_train_step(optimizer: optax.GradientTransformation) -> Any:
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(model: Net, optimizer_state: Any, images: Array, labels: Array) -> Any:
        def objective(model: Net) -> Any:
            logits, model = ox.call_and_update(model, images, training=True)
            loss, correct = score(logits, labels)
            return loss, (model, correct)

        grad = ox.value_and_grad(objective, has_aux=True)
        (loss, (model, correct)), gradient = grad(model)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, model)
        return eqx.apply_updates(model, updates), optimizer_state, loss, correct

    return train_step


@jax.jit
def evaluate(model: Net, images: Array, labels: Array) -> tuple[Array, Array, Array]:
    logits = model(images, training=False)
    return *score(logits, labels), logits


def train(options: Options, digits: Digits, screen: Screen) -> tuple[dict[str, Any], np.ndarray]:
    """Train a model; the figures of the run, and the logits of the test images."""
    steps = len(digits.train_labels) // BATCH_SIZE
    total = options.epochs * steps
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, warmup_steps=math.ceil(total / 10), decay_steps=total
    )
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    train_step = make_train_step(optimizer)

    model = make_net(jax.random.key(options.seed))
    params, _ = ox.partition(model)
    optimizer_state = optimizer.init(params)
    screen.show_summary(model)

    order = np.random.default_rng(options.seed)
    curves: dict[str, list[float]] = {
        name: [] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    }
    with screen.progress(options.epochs, steps) as progress:
        for _ in range(options.epochs):
            losses, found = [], 0
            batches = order.permutation(len(digits.train_labels))[: steps * BATCH_SIZE]
            for batch in batches.reshape(steps, BATCH_SIZE):
                model, optimizer_state, loss, correct = train_step(
                    model, optimizer_state, digits.train_images[batch], digits.train_labels[batch]
                )
                losses.append(float(loss))
                found += int(correct)
                progress.step(float(np.mean(losses)), found / (len(losses) * BATCH_SIZE))
            test_loss, correct, logits = evaluate(model, digits.test_images, digits.test_labels)
            curves["train_loss"].append(float(np.mean(losses)))
            curves["train_accuracy"].append(found / len(batches))
            curves["test_loss"].append(float(test_loss))
            curves["test_accuracy"].append(int(correct) / len(digits.test_labels))
            progress.epoch(**{name: values[-1] for name, values in curves.items()})

    figures = {
        "epochs": options.epochs,
        "seed": options.seed,
        "steps": total,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "training_calls_counted_by_batchnorm": int(model.blocks[0].norm.count),
        "test_accuracy": curves["test_accuracy"][-1],
        "curves": curves,
    }
    return figures, np.asarray(logits)


def main() -> None:
    started = time.perf_counter()
    options = parse(__doc__)
    screen, digits = Screen(), load()
    screen.show_data(digits)
    figures, logits = train(options, digits, screen)
    seconds = time.perf_counter() - started
    paths = [
        write_curves(options.out, figures["curves"], digits, logits),
        write_figures(options.out, figures, seconds),
    ]
    screen.show_result(figures, digits, seconds, paths)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("digits.py: stopped")
    except OSError as error:
        sys.exit(f"digits.py: error: {error}")
