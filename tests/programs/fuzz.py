"""More programs than CI runs: `nox -s fuzz -- --programs 1000 --seed 7`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
import warnings

import conftest  # noqa: F401  (eight devices, strict promotion)
import jax
from hypothesis import HealthCheck, given, seed, settings
from programs import check
from programs.grammar import programs

# Of how many; an eager call compiles each loop by itself and takes three times as long.
SHARES = {outer: 1 if outer == "alone" else 3 for outer in check.OUTER}


def run(outer: str, count: int, number: int) -> tuple[int, BaseException | None]:
    """Try `count` programs; how many had a meaning to compare, and what went wrong."""
    compared = 0

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        derandomize=False,
    )
    @given(programs)
    def each(node):
        nonlocal compared
        check.OUTER[outer](node)
        compared += 1

    try:
        each()
    except Exception as error:
        return compared, error
    return compared, None


def main() -> None:
    """Run all outer transformations for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="of each seed")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)  # JAX logs each callback that is refused
    total, wrong = 0, 0
    for number in range(args.seed, args.seed + args.seeds):
        start, compared = time.perf_counter(), 0
        for outer, share in SHARES.items():
            count, error = run(outer, args.programs * share // sum(SHARES.values()), number)
            compared += count
            if error is not None:
                wrong += 1
                traceback.print_exception(error)
            jax.clear_caches()
        total += compared
        seconds = time.perf_counter() - start
        print(f"JAX {jax.__version__}, seed {number}: {compared} in {seconds:.0f} s", flush=True)
    print(f"{total} programs compared, {wrong} kinds of failure")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
