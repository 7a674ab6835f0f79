"""What importing the library costs programs of JAX that do not use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from _measure import report

ROOT = Path(__file__).parents[1]
LAYERS, OPERATIONS, CALLS = 200, 100, 1000
# The second shows how much two processes differ that do the same.
IMPORTS = {"without": "jax", "without, once more": "jax", "with": "oryxstate"}

# Each line of its input is the number of a part, of which it prints the seconds of processor time:
# they depend less on what else the machine does than those of the clock.
PROGRAM = """
import gc, sys, time, {imported}
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
    def deep(x):
        for _ in range({layers}):
            x = layer(x)
        return x
    jax.jit(deep).trace(x)

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
    start = time.process_time()
    run()
    end = time.process_time()
    gc.enable()
    return end - start

parts = dispatch, operations, trace, error
for part in parts:
    part()
for line in sys.stdin:
    print(seconds(parts[int(line)]), flush=True)
"""
PARTS = (
    f"import: {CALLS} calls of a jitted function",
    f"import: {2 * OPERATIONS} eager operations",
    f"import: trace of {LAYERS} layers (scan, cond, relu)",
    "import: an error that passes scan and jit",
)


def _start(imported: str) -> subprocess.Popen:
    program = PROGRAM.format(imported=imported, calls=CALLS, operations=OPERATIONS, layers=LAYERS)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,  # also where the package is not installed
    )


def _seconds(process: subprocess.Popen, part: int) -> float:
    assert process.stdin and process.stdout
    process.stdin.write(f"{part}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def run(rounds: int, processes: int = 3) -> None:
    """Processes with and without the import take turns, one measuring at a time.

    Processes, since an import cannot be undone, and several of each, since the speed of one also
    depends on where its memory lies.
    """
    seconds: list[dict[str, list[float]]] = [{name: [] for name in IMPORTS} for _ in PARTS]
    for _ in range(processes):
        started = {name: _start(imported) for name, imported in IMPORTS.items()}
        for number in range(rounds):
            for part in range(len(PARTS)):
                for name in list(started) if number % 2 else reversed(list(started)):
                    seconds[part][name].append(_seconds(started[name], part))
        for process in started.values():
            process.communicate()
    for title, times in zip(PARTS, seconds, strict=True):
        report(title, times, "without")


COLD = """
import sys, time
import jax
{before}
start = time.process_time()
import {imported}
print(time.process_time() - start)
"""


def run_cold(processes: int) -> None:
    """The import itself, over that of JAX, and where Equinox is there already."""
    programs = {
        "import jax": COLD.replace("import jax\n", "").format(before="", imported="jax"),
        "oryxstate, over jax": COLD.format(before="", imported="oryxstate"),
        "oryxstate, over equinox": COLD.format(before="import equinox", imported="oryxstate"),
        "equinox, over jax": COLD.format(before="", imported="equinox"),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(processes):
        for name, program in programs.items():
            run = [sys.executable, "-c", program]
            done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
            times[name].append(float(done.stdout))
    report("import", times, "import jax")


if __name__ == "__main__":
    run(rounds=15)
