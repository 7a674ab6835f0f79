"""Time and memory of saving and restoring one gigabyte, beside Orbax alone.

Each measurement is a process of its own. The price of durability is the time without `fsync`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROUNDS, ARRAYS = 3, 64


def resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_of(function) -> tuple[float, float, float]:
    """Seconds, and the resident memory before and at most, in MiB."""
    before, peak, done = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return seconds, before, peak


def measure(which: str, what: str, folder: str) -> None:
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as orbax

    import oryxstate as ox

    def make():
        keys = range(ARRAYS)
        return {f"layer {i}": jax.random.normal(jax.random.key(i), (4, 2**20)) for i in keys}

    abstract = jax.eval_shape(make)
    if which == "no fsync":
        os.fsync = lambda descriptor: None
    warm = os.path.join(tempfile.mkdtemp(dir=os.path.dirname(folder)), "warm")
    small = {"x": jnp.ones(3)}
    if which == "orbax":
        with orbax.StandardCheckpointer() as checkpointer:
            checkpointer.save(warm, small)
            checkpointer.wait_until_finished()
            checkpointer.restore(warm, small)
    else:
        ox.checkpoint.save(warm, small)
        ox.checkpoint.restore(warm, small)
    if what == "save":
        tree = make()
        jax.block_until_ready(tree)

    def run() -> None:
        if which == "orbax":
            with orbax.StandardCheckpointer() as checkpointer:
                if what == "save":
                    checkpointer.save(folder, tree)
                    checkpointer.wait_until_finished()
                else:
                    jax.block_until_ready(checkpointer.restore(folder, abstract))
        elif what == "save":
            ox.checkpoint.save(folder, tree)
        else:
            jax.block_until_ready(ox.checkpoint.restore(folder, into=abstract))

    print(json.dumps(peak_of(run)))


def main() -> None:
    figures: dict[tuple[str, str], list] = {}
    for _ in range(ROUNDS):
        for which in ("orbax", "ours", "no fsync"):
            with tempfile.TemporaryDirectory() as above:
                for what in ("save", "restore"):
                    command = [sys.executable, __file__, which, what, f"{above}/model"]
                    run = subprocess.run(command, capture_output=True, text=True, check=True)
                    figure = json.loads(run.stdout.splitlines()[-1])
                    figures.setdefault((what, which), []).append(figure)
    print(f"{ARRAYS} arrays of 16 MiB, median of {ROUNDS}")
    for (what, which), rows in figures.items():
        seconds, before, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{what:8} {which:9} {seconds:6.2f} s  {before:5.0f} MiB before, {peak:5.0f} at most")


if __name__ == "__main__":
    measure(*sys.argv[1:]) if sys.argv[1:] else main()
