"""Train a convolutional net with BatchNorm and Dropout on 1,797 handwritten digits.

The model is put together from layers. Running statistics are their state, and one random key
reaches all that need one: see how little `NET` and `train_step` say about them.
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
from jaxtyping import Array, Float, Int

import oryxstate as ox
from oryxstate import nn

BATCH_SIZE = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2

# The model ----------------------------------------------------------------------------------------


class Count(nn.Layer):
    """Hands on what it gets, and counts the batches that it was trained on."""

    batches: Int[Array, ""] = ox.state()

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any) -> nn.LayerParams:
        return nn.LayerParams(state={"batches": jnp.array(0)})

    def call(self, x: Array, *, training: bool) -> Array:
        return x

    def call_batched(self, xs: Array, *, training: bool) -> Array:
        if training:
            self.assign(batches=self.batches + 1)
        return xs


def block(features: int) -> nn.Template:
    """Convolution, BatchNorm, relu, and the larger of each two by two pixels."""
    conv = nn.Conv.of(features, (3, 3), padding="SAME", use_bias=False, kernel_init=HE)
    return conv >> nn.BatchNorm.of(momentum=0.9) >> jax.nn.relu >> nn.MaxPool.of((2, 2))


HE = jax.nn.initializers.he_normal()
READOUT = nn.Flatten.of() >> nn.Dropout.of(0.3) >> nn.Dense.of(10)
# Three blocks halve the image until one pixel of features is left.
NET = Count.of() >> block(32) >> block(64) >> block(128) >> READOUT


# Training -----------------------------------------------------------------------------------------


def score(logits: Float[Array, "b 10"], labels: Int[Array, "b"]) -> tuple[Array, Array]:
    """Mean cross-entropy, and how many of the labels are found."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).sum()


def make_train_step(optimizer: optax.GradientTransformation) -> Any:
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(model: Any, optimizer_state: Any, images: Array, labels: Array, key: Any) -> Any:
        def objective(model: Any) -> Any:
            # One model comes out for all images: BatchNorm has seen the batch.
            logits, model = ox.batch_call_and_update(model, images, training=True, rng=key)
            loss, correct = score(logits, labels)
            return loss, (model, correct)

        grad = ox.value_and_grad(objective, has_aux=True)
        (loss, (model, correct)), gradient = grad(model)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, model)
        return eqx.apply_updates(model, updates), optimizer_state, loss, correct

    return train_step


@jax.jit
def evaluate(model: Any, images: Array, labels: Array) -> tuple[Array, Array, Array]:
    logits = ox.batch_call(model, images, training=False)
    return *score(logits, labels), logits


def make_optimizer(steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, warmup_steps=math.ceil(steps / 10), decay_steps=steps
    )
    return optax.adamw(schedule, weight_decay=WEIGHT_DECAY)


def train(options: Options, digits: Digits, screen: Screen) -> tuple[dict[str, Any], np.ndarray]:
    """Train a model; the figures of the run, and the logits of the test images."""
    steps = len(digits.train_labels) // BATCH_SIZE
    total = options.epochs * steps
    optimizer = make_optimizer(total)
    train_step = make_train_step(optimizer)

    init_key, dropout_key = jax.random.split(jax.random.key(options.seed))
    model = ox.init(NET)(init_key, digits.train_images[0])
    params, _ = ox.partition(model)
    optimizer_state = optimizer.init(params)
    screen.show_summary(model)

    order = np.random.default_rng(options.seed)
    keys = iter(jax.random.split(dropout_key, total))
    curves: dict[str, list[float]] = {
        name: [] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    }
    with screen.progress(options.epochs, steps) as progress:
        for _ in range(options.epochs):
            losses, found = [], 0
            batches = order.permutation(len(digits.train_labels))[: steps * BATCH_SIZE]
            for batch in batches.reshape(steps, BATCH_SIZE):
                model, optimizer_state, loss, correct = train_step(
                    model,
                    optimizer_state,
                    digits.train_images[batch],
                    digits.train_labels[batch],
                    next(keys),
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
        "batches_counted_by_the_model": int(model.layers[0].batches),
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
