"""Timing of one thing against another: in one process, taking turns, as ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import jax

FRAMES = 8  # by which each round stands deeper than the one before
Times = dict[str, list[float]]
results: list[dict] = []
"""What has been reported in this process, as it goes into the JSON file."""


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of processor time of each candidate in `rounds` rounds, in which all take turns.

    Processor time, since that of the clock counts also what else the machine does. Each round
    stands elsewhere on the stack of Python's frames: what crosses the end of one of its chunks
    takes up to twice as long (`oryxstate/_stack.py`), which is no property of a candidate.
    """
    for run in candidates.values():
        run()  # imports, caches and compilation are not what is measured
    times: Times = {name: [] for name in candidates}
    for round_number in range(rounds):
        names = list(candidates) if round_number % 2 else list(reversed(candidates))
        for name in names:
            gc.collect()
            gc.disable()
            times[name].append(_seconds(candidates[name], FRAMES * (round_number % 8)))
            gc.enable()
    return times


def _seconds(run: Callable[[], object], frames: int) -> float:
    if frames:
        return _seconds(run, frames - 1)
    start = time.process_time()
    run()
    return time.process_time() - start


def repeated(run: Callable[..., object], *args: object, times: int) -> Callable[[], object]:
    """Call something often enough to be measured."""

    def many() -> object:
        out = None
        for _ in range(times):
            out = run(*args)
        return jax.block_until_ready(out)

    return many


def traced(step: Callable, args: tuple) -> Callable[[], object]:
    """Trace `step` as a new function, which JAX has not traced yet."""
    return lambda: jax.jit(lambda *a: step(*a)).trace(*args)


def report_traces(
    title: str, steps: dict[str, tuple[Callable, tuple]], base: str, rounds: int
) -> None:
    """Report how long each step takes to be traced, and how many equations come out."""
    times = interleaved({name: traced(*step) for name, step in steps.items()}, rounds)
    equations = {
        name: f"{len(jax.make_jaxpr(step)(*args).eqns)} equations"
        for name, (step, args) in steps.items()
    }
    report(title, times, base, equations)


def report(
    title: str,
    times: Times,
    base: str,
    notes: dict[str, str] | None = None,
    *,
    repeats: int = 1,
) -> None:
    """Print the time of one repetition, and the ratio to the candidate named `base`.

    A ratio is the median over the rounds, in which it is of two neighbours; beside it stand its
    quartiles.
    """
    rows = {}
    print(f"\n{title}")
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        median = statistics.median(seconds) / repeats
        note = (notes or {}).get(name, "")
        rows[name] = {
            "milliseconds": round(median * 1e3, 4),
            "ratio": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            **({"note": note} if note else {}),
        }
        print(
            f"  {name:<28}{median * 1e3:10.3f} ms  {middle:6.2f}x  [{low:.2f}, {high:.2f}]  {note}"
        )
    results.append({"title": title, "base": base, "rows": rows})
