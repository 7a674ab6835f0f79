"""Train one model on many devices of many processes, with checkpoints that any number can resume.

On one machine, `python -m oryxstate.launch --processes 4 docs/examples/distributed.py`; under Slurm
`srun python docs/examples/distributed.py`. Kill it, and start it again with another number.

Each device holds a share of the parameters and of the optimizer's state (FSDP) and computes its
share of each batch; the losses do not depend on how many there are.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

import oryxstate as ox
from oryxstate import nn, sharding

EXAMPLES, FEATURES, CLASSES = 200, 16, 8
BATCH_SIZE, ACCUMULATED = 64, 2  # examples per update, and in how many parts they are computed
BATCHES = -(-EXAMPLES // BATCH_SIZE)  # per epoch; the last is not full
OPTIMIZER = optax.adamw(3e-3)
RULES = sharding.FSDP

# Data ---------------------------------------------------------------------------------------------


@functools.cache
def example(number: int) -> tuple[np.ndarray, int]:
    """One example, as if read from a file."""
    values = np.random.default_rng([1, number]).normal(size=FEATURES).astype(np.float32)
    teacher = np.random.default_rng(0).normal(size=(FEATURES, CLASSES))
    return values, int(np.argmax(values @ teacher))


def load_batch(step: int, mesh: jax.sharding.Mesh) -> dict[str, Array]:
    """The batch of a step, of which each process reads only the examples of its own devices.

    The step alone says which these are, so a run that is resumed needs no other position. Where
    the last batch of an epoch is not full, examples without weight fill it.
    """
    order = np.random.default_rng([2, step // BATCHES]).permutation(EXAMPLES)
    own = order[step % BATCHES * BATCH_SIZE :][:BATCH_SIZE]
    numbers = np.pad(own, (0, BATCH_SIZE - len(own))).reshape(ACCUMULATED, -1)
    weights = (np.arange(BATCH_SIZE) < len(own)).astype(np.float32).reshape(ACCUMULATED, -1)

    def column(i: int) -> Any:
        return lambda index: np.array(
            [[example(int(n))[i] for n in row] for row in numbers[index[:2]]]
        )

    def over_devices(shape: tuple[int, ...], read: Any) -> Array:
        return jax.make_array_from_callback(
            shape, NamedSharding(mesh, PartitionSpec(None, "data")), read
        )

    return {
        "x": over_devices((*numbers.shape, FEATURES), column(0)),
        "label": over_devices(numbers.shape, column(1)),
        "weight": over_devices(numbers.shape, lambda index: weights[index]),
    }


# The model ----------------------------------------------------------------------------------------


def begin(dtype: str) -> dict[str, Any]:
    """All that a run has, when it begins."""
    network = nn.MLP.of((64, 64, CLASSES), jax.nn.gelu)
    template = nn.MixedPrecision.of(nn.Dropout.of(0.1) >> network, dtype=dtype)
    model = ox.init(template)(jax.random.key(0), jnp.ones(FEATURES))
    return {"model": model, "optimizer": OPTIMIZER.init(ox.partition(model)[0])}


def train_step(state: dict[str, Any], batch: dict[str, Array], key: Array) -> Any:
    """One update, from gradients that are summed over the parts of the batch."""
    model, total = state["model"], batch["weight"].sum()

    def add(gradients: Any, part: Any) -> Any:
        data, own = part

        def objective(model: Any) -> Array:
            logits = ox.batch_call(model, data["x"], training=True, rng=own)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, data["label"])
            return (data["weight"] * losses).sum() / total

        loss, gradient = ox.value_and_grad(objective)(model)
        return jax.tree.map(jnp.add, gradients, gradient), loss

    zeros = jax.tree.map(jnp.zeros_like, ox.partition(model)[0])
    gradients, losses = lax.scan(add, zeros, (batch, jax.random.split(key, ACCUMULATED)))
    updates, optimizer = OPTIMIZER.update(gradients, state["optimizer"], ox.partition(model)[0])
    return {"model": eqx.apply_updates(model, updates), "optimizer": optimizer}, losses.sum()


# The run ------------------------------------------------------------------------------------------


def train(mesh: jax.sharding.Mesh, folder: Path, steps: int, every: int, dtype: str) -> None:
    """Train from the last checkpoint, or from the beginning."""
    into = sharding.abstract(jax.eval_shape(lambda: begin(dtype)), mesh, RULES)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, into)
    advance = jax.jit(train_step, out_shardings=(shardings, None), donate_argnums=0)
    with ox.checkpoint.Checkpoints(folder, keep_last=2) as checkpoints:
        done = checkpoints.latest()
        if done is None:  # each device makes its own share
            state = sharding.make(lambda: begin(dtype), mesh, RULES)()
        else:  # and reads it
            state = checkpoints.restore(into, step=done)
        for step in range(done or 0, steps):
            key = jax.random.fold_in(jax.random.key(1), step)
            state, loss = advance(state, load_batch(step, mesh), key)
            if jax.process_index() == 0:
                print(f"step {step + 1} loss {float(loss)!r}", flush=True)
            if (step + 1) % every == 0 or step + 1 == steps:
                checkpoints.save(step + 1, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("run"), help="of the checkpoints")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=10, help="steps from checkpoint to checkpoint")
    parser.add_argument("--dtype", default="bfloat16", help="to compute in; parameters are float32")
    parser.add_argument(
        "--heartbeat", type=int, default=100, help="seconds to notice a lost process"
    )
    options = parser.parse_args()
    jax.distributed.initialize(heartbeat_timeout_seconds=options.heartbeat)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))
    train(mesh, options.folder, options.steps, options.every, options.dtype)


if __name__ == "__main__":
    main()
