"""Training that is killed with SIGKILL again and again, and must end as if it had not been.

`python tests/crash.py --kills 200`: each kill comes at a random moment. A child that starts goes on
from the last checkpoint, which must be whole, and not older than any that was announced as saved.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import oryxstate as ox
from oryxstate._extras import require

STEPS = 12


def begin():
    """The state of a run: parameters, their momentum, a random key, and the data position."""
    order = np.random.default_rng(0)
    return {
        "weights": {f"layers.{i}": jnp.zeros((16, 16)) for i in range(4)},
        "momentum": {f"layers.{i}": jnp.zeros((16, 16)) for i in range(4)},
        "key": jax.random.key(0),
        "order": order.bit_generator.state,
        "seen": 0,
    }


def advance(state):
    """One step; what it adds depends on all that is in the state."""
    order = np.random.default_rng()
    order.bit_generator.state = state["order"]
    key, own = jax.random.split(state["key"])
    drawn = jax.random.normal(own, (16, 16)) + float(order.random())
    momentum = {name: 0.9 * m + drawn for name, m in state["momentum"].items()}
    weights = {name: w - 0.1 * momentum[name] for name, w in state["weights"].items()}
    generator = order.bit_generator.state
    seen = state["seen"] + 1
    return {
        "weights": weights,
        "momentum": momentum,
        "key": key,
        "order": generator,
        "seen": seen,
    }


def digest(state):
    """A text that two states share if they are equal bit for bit."""
    leaves = {**state, "key": jax.random.key_data(state["key"])}
    texts = [
        f"{path} {np.asarray(leaf).tobytes().hex() if hasattr(leaf, 'shape') else leaf!r}"
        for path, leaf in ox.named_leaves(leaves).items()
    ]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def train(folder, say):
    """Go on from the last checkpoint to the end."""
    with ox.checkpoint.Checkpoints(folder, keep_last=2) as run:
        latest = run.latest()
        state = begin() if latest is None else run.restore(begin())
        assert state["seen"] == (0 if latest is None else latest + 1)
        say(f"from {-1 if latest is None else latest}")
        for step in range(state["seen"], STEPS):
            state = advance(state)
            run.save(step, state)  # which waits for the one before
            if step:
                say(f"saved {step - 1}")
    say(f"saved {STEPS - 1}")
    say(f"ended {digest(state)}")


def start(folder):
    """Fork a child that trains; its number, and where it writes what it has done."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    status = 1
    try:
        train(folder, lambda text: os.write(write, f"{text}\n".encode()))
        status = 0
    except BaseException as error:
        os.write(write, f"failed {type(error).__name__}: {error}\n".replace("\n", " ").encode())
    os._exit(status)


def listen(read, until):
    """What a child said until it ended or a time came, and whether it ended."""
    said = b""
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return said.decode(), False
        more = os.read(read, 65536)
        if not more:
            return said.decode(), True
        said += more


def life(folder, seconds):
    """Run a child, kill it after a time, and return what it said and whether it had ended."""
    child, read = start(folder)
    said, ended = listen(read, time.monotonic() + seconds)
    if not ended:
        os.kill(child, signal.SIGKILL)
        said += listen(read, time.monotonic() + 60)[0]
    os.waitpid(child, 0)
    os.close(read)
    return said.splitlines(), ended


def check(said, announced):
    """The last step that is announced as saved, if the child began where it should."""
    for line in said:
        what, _, rest = line.partition(" ")
        assert what != "failed", line
        if what == "from":
            assert int(rest) >= announced, f"went on from {rest}, but {announced} was announced"
        elif what == "saved":
            announced = max(announced, int(rest))
    return announced


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for module in ("orbax.checkpoint", "etils.epath"):
        require(module, "train")  # before forking, once for all children
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as above:
        said, ended = life(Path(above, "uninterrupted"), 600)
        assert ended, said
        check(said, -1)
        expected = said[-1]
        began = time.monotonic()
        said, _ = life(Path(above, "timed"), 600)
        whole = time.monotonic() - began
        kills = runs = 0
        while kills < options.kills:
            runs, announced, ended = runs + 1, -1, False
            while not ended:
                limit = draw.uniform(0, whole) if kills < options.kills else 600
                said, ended = life(Path(above, str(runs)), limit)
                announced = check(said, announced)
                kills += not ended
            assert said[-1] == expected, (said, expected)
    print(f"{kills} kills in {runs} runs, seed {options.seed}: all went on and ended alike")


if __name__ == "__main__":
    sys.exit(main())
