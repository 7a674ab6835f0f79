"""How is one thing timed against another? In one process, taking turns, as medians and ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each candidate over `rounds` rounds in which all take turns."""
    for run in candidates.values():
        run()  # imports, caches and compilation are not what is measured
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds):
        names = list(candidates) if round_number % 2 else list(reversed(candidates))
        for name in names:
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            candidates[name]()
            times[name].append(time.perf_counter() - start)
            gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, medians: dict[str, float], base: str, extra: dict[str, str] | None = None):
    """Print medians, and ratios to the candidate named `base`."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        note = f"  {extra[name]}" if extra and name in extra else ""
        print(f"  {name:<24}{seconds * 1e3:10.3f} ms  {seconds / medians[base]:6.2f}x{note}")
