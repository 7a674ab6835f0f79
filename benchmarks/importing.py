"""What importing the library costs programs of JAX that do not use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from _measure import report

LAYERS, OPERATIONS, CALLS = 200, 100, 1000
IMPORTS = {"without": "equinox", "with": "oryxstate"}  # which itself imports Equinox

# One line of JSON for each line of its input: the seconds of each part.
PROGRAM = """
import gc, json, sys, time, {imported}
import jax, jax.numpy as jnp
from jax import lax

x, function = jnp.ones((4, 4)), jax.jit(lambda x: x + 1)

def dispatch():
    for _ in range({calls}):
        y = function(x)
    y.block_until_ready()

def operations():
    y = x
    for _ in range({operations}):
        y = jnp.tanh(y) * 1.01
    y.block_until_ready()

def layer(x):
    x = lax.scan(lambda h, _: (jnp.sin(h), None), x, None, length=2)[0]
    return jax.nn.relu(lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x))

def trace():
    def loss(x):
        for _ in range({layers}):
            x = layer(x)
        return x.sum()
    jax.jit(jax.grad(loss)).trace(x)

def error():
    def wrong(c, _):
        raise KeyError
    try:
        jax.jit(lambda x: lax.scan(wrong, x, None, length=2)).trace(x)
    except KeyError:
        pass

def seconds(run):
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    run()
    end = time.perf_counter()
    gc.enable()
    return end - start

parts = dispatch, operations, trace, error
for part in parts:
    part()
for _ in sys.stdin:
    print(json.dumps([seconds(part) for part in parts]), flush=True)
"""
PARTS = (
    f"import: {CALLS} calls of a jitted function",
    f"import: {2 * OPERATIONS} eager operations",
    f"import: trace of {LAYERS} layers (scan, cond, relu), forward + gradient",
    "import: an error that passes scan and jit",
)


def _start(imported: str) -> subprocess.Popen:
    program = PROGRAM.format(imported=imported, calls=CALLS, operations=OPERATIONS, layers=LAYERS)
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,  # also where the package is not installed
    )


def _round(process: subprocess.Popen) -> list[float]:
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def run(rounds: int, processes: int = 3) -> None:
    """Pairs of processes with and without the import take turns, one measuring at a time.

    Processes, since an import cannot be undone, and several, since how fast one of them runs also
    depends on where its memory lies.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in IMPORTS}
    for _ in range(processes):
        started = {name: _start(imported) for name, imported in IMPORTS.items()}
        for number in range(rounds):
            for name in list(started) if number % 2 else reversed(list(started)):
                seconds[name].append(_round(started[name]))
        for process in started.values():
            process.communicate()
    for index, title in enumerate(PARTS):
        medians = {n: median(row[index] for row in rows) for n, rows in seconds.items()}
        report(title, medians, "without")


if __name__ == "__main__":
    run(rounds=15)
