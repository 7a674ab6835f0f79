"""Timing of one thing against another: in one process, taking turns, as medians and ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import jax

FRAMES = 8  # by which each round stands deeper than the one before


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each candidate over `rounds` rounds in which all take turns.

    Each round stands elsewhere on the stack of Python's frames: what crosses the end of one of its
    chunks takes up to twice as long (`oryxstate/_stack.py`), which is no property of a candidate.
    """
    for run in candidates.values():
        run()  # imports, caches and compilation are not what is measured
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds):
        names = list(candidates) if round_number % 2 else list(reversed(candidates))
        for name in names:
            gc.collect()
            gc.disable()
            times[name].append(_seconds(candidates[name], FRAMES * (round_number % 8)))
            gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def _seconds(run: Callable[[], object], frames: int) -> float:
    if frames:
        return _seconds(run, frames - 1)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def traced(step: Callable, args: tuple) -> Callable[[], object]:
    """Trace `step` as a new function, which JAX has not traced yet."""
    return lambda: jax.jit(lambda *a: step(*a)).trace(*args)


def report_traces(
    title: str, steps: dict[str, tuple[Callable, tuple]], base: str, rounds: int
) -> None:
    """Print how long each step takes to be traced, and how many equations come out."""
    medians = interleaved({name: traced(*step) for name, step in steps.items()}, rounds)
    equations = {
        name: f"{len(jax.make_jaxpr(step)(*args).eqns)} equations"
        for name, (step, args) in steps.items()
    }
    report(title, medians, base, equations)


def report(title: str, medians: dict[str, float], base: str, extra: dict[str, str] | None = None):
    """Print medians, and ratios to the candidate named `base`."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        note = f"  {extra[name]}" if extra and name in extra else ""
        print(f"  {name:<24}{seconds * 1e3:10.3f} ms  {seconds / medians[base]:6.2f}x{note}")
