"""Train a convolutional net with BatchNorm and Dropout on 1,797 handwritten digits.

The model is put together from layers. Running statistics and the average of the weights are its
state, and one random key reaches all that need one: `NET` and `train_step` say little about them.
A checkpoint follows each epoch. Ctrl-C saves one too; after it, or after `kill -9`, `--resume`
goes on, and the figures are those of a run that was never stopped.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _digits_arguments import Options, parse
from _digits_data import Digits, Images, load
from _digits_files import write_curves, write_figures
from _digits_run import opened, resumed
from _digits_screen import Screen
from _digits_signals import Stop
from jaxtyping import Array, Float, Int

import oryxstate as ox
from oryxstate import nn

BATCH_SIZE = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")

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


class Metrics(ox.Module):
    """Sums over the batches of an epoch: metrics are state like any other."""

    loss: Float[Array, ""] = ox.state(default_factory=lambda: jnp.array(0.0))
    correct: Int[Array, ""] = ox.state(default_factory=lambda: jnp.array(0))
    images: Int[Array, ""] = ox.state(default_factory=lambda: jnp.array(0))

    def call(self, logits: Float[Array, "b 10"], labels: Int[Array, "b"]) -> Array:
        """Mean cross-entropy of a batch, which is added to the sums."""
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = (logits.argmax(-1) == labels).sum()
        sums = self.loss + loss.sum(), self.correct + correct, self.images + len(labels)
        self.assign(loss=sums[0], correct=sums[1], images=sums[2])
        return loss.mean()

    def means(self) -> tuple[float, float]:
        """Cross-entropy and accuracy per image."""
        return float(self.loss / self.images), float(self.correct / self.images)


# Training -----------------------------------------------------------------------------------------


class Run(NamedTuple):
    """All that a run is: what a checkpoint holds, and what `--resume` goes on from."""

    model: Any
    optimizer_state: Any
    metrics: Metrics  # of the epoch so far
    curves: np.ndarray  # [epochs, 4], NaN where it has not come to yet
    step: int  # from which the epoch, the batch and the random key of a step follow
    options: dict[str, int]  # which have to be the same when it goes on

    def is_over(self) -> bool:
        """Whether all epochs are done, or the last ones have brought nothing better."""
        done, losses = int(np.isfinite(self.curves).all(1).sum()), self.curves[:, 2]
        waited = done - 1 - int(np.nanargmin(losses)) if done else 0
        return done == len(self.curves) or waited >= self.options["patience"]


def begin(options: Options, digits: Digits, optimizer: optax.GradientTransformation) -> Run:
    template = nn.EMA.of(NET, decay=0.95, every=options.accumulate)
    model = ox.init(template)(jax.random.key(options.seed), digits.train.images[0])
    curves = np.full((options.epochs, len(CURVES)), np.nan)
    params, _ = ox.partition(model)
    return Run(model, optimizer.init(params), Metrics(), curves, 0, options.numbers())


def make_optimizer(options: Options, steps: int) -> optax.GradientTransformation:
    """AdamW, for which the gradients of `options.accumulate` batches count as one."""
    updates = math.ceil(options.epochs * steps / options.accumulate)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, warmup_steps=math.ceil(updates / 10), decay_steps=updates
    )
    adamw = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    return optax.MultiSteps(adamw, options.accumulate).gradient_transformation()


def make_train_step(optimizer: optax.GradientTransformation) -> Any:
    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def train_step(model: Any, state: Any, metrics: Metrics, batch: Images, key: Any) -> tuple:
        def objective(model: Any) -> Any:
            # One model comes out for all images: BatchNorm has seen the batch.
            logits, model = ox.batch_call_and_update(model, batch.images, training=True, rng=key)
            loss, seen = metrics.call_and_update(logits, batch.labels)
            return loss, (model, seen)

        gradient, (model, seen) = ox.grad(objective, has_aux=True)(model)
        updates, state = optimizer.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state, seen

    return train_step


@jax.jit
def evaluate(model: Any, part: Images) -> tuple[Metrics, Array]:
    """Metrics and logits of the averaged model."""
    logits = ox.batch_call(model, part.images, training=False)
    return Metrics().update(logits, part.labels), logits


def train(run: Run, step: Any, digits: Digits, progress: Any, checkpoints: Any, stop: Stop) -> Run:
    """Train until the run is over, or told to stop; a loss that is not finite is an error."""
    steps, seed = len(digits.train.labels) // BATCH_SIZE, run.options["seed"]
    key = jax.random.key(seed + 1)
    while not (run.is_over() or stop.asked):
        epoch, i = divmod(run.step, steps)
        batch = digits.train.batch(i, BATCH_SIZE, seed=(seed, epoch))
        state = step(*run[:3], batch, jax.random.fold_in(key, run.step))
        run = run._replace(**dict(zip(Run._fields, state, strict=False)), step=run.step + 1)
        progress.step(*run.metrics.means())
        if ends := run.step % steps == 0:
            seen, _ = evaluate(run.model, digits.validation)
            run.curves[epoch] = *run.metrics.means(), *seen.means()
            if not np.isfinite(run.curves[epoch]).all():
                raise ValueError(
                    f"epoch {epoch + 1} ended with a loss that is not finite. Lower "
                    "PEAK_LEARNING_RATE, and give the new run another folder, --out"
                )
            run = run._replace(metrics=Metrics())
            progress.epoch(epoch, *run.curves[epoch])
        if ends or stop.asked:  # a loss of NaN, in the middle of an epoch, is the worst
            checkpoints.save(run.step, run, metrics={"loss": run.curves[epoch, 2]})
    return run


def result(run: Run, digits: Digits) -> tuple[dict[str, Any], Array]:
    """The figures of the run, and the logits of the images that are held out."""
    test, logits = evaluate(run.model, digits.test)
    done = np.isfinite(run.curves).all(1)
    figures = {
        **run.options,
        "best_epoch": int(np.nanargmin(run.curves[:, 2])) + 1,
        "parameters": ox.select.params.count(run.model),
        "steps": run.step,
        "batches_counted_by_the_model": int(run.model.layer.layers[0].batches),
        "test_accuracy": test.means()[1],
        "curves": dict(zip(CURVES, run.curves[done].T.tolist(), strict=True)),
    }
    return figures, logits


def main() -> None:
    started = time.perf_counter()
    options = parse(__doc__)
    screen, digits = Screen(), load()
    steps = len(digits.train.labels) // BATCH_SIZE
    optimizer = make_optimizer(options, steps)
    with opened(options) as checkpoints, Stop() as stop:
        screen.show_data(digits)
        run = begin(options, digits, optimizer)
        screen.show_summary(run.model, digits)
        if checkpoints.latest() is not None:
            run = resumed(checkpoints, run)
        with screen.progress(run, steps) as progress:
            run = train(run, make_train_step(optimizer), digits, progress, checkpoints, stop)
        if not run.is_over():
            checkpoints.wait()
            sys.exit(screen.show_stopped(run, options))
        best = checkpoints.restore(run, step=checkpoints.best())._replace(curves=run.curves)
    figures, logits = result(best, digits)
    seconds = time.perf_counter() - started
    paths = [
        write_curves(options.out, figures["curves"], digits.test, np.asarray(logits)),
        write_figures(options.out, figures, seconds),
    ]
    screen.show_result(figures, digits, seconds, paths)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("digits.py: stopped")
    except (OSError, ValueError, ox.CheckpointError) as error:
        sys.exit(f"digits.py: error: {error}")
