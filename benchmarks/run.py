"""Ours, Equinox and hand-written JAX, interleaved in one process: `nox -s bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import _measure
import annotations
import dispatch
import eager
import equinox as eqx
import importing
import initialize
import jax
import layers
import scaling
import tracing

RESULTS = Path(__file__).with_name("results.json")


def parts(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """What there is to measure, in the order of the page."""
    rounds, blocks = args.rounds, args.blocks
    few = max(3, rounds // 3)
    return {
        "tracing": lambda: tracing.run(blocks, rounds),
        "layers": lambda: layers.run(blocks, rounds),
        "scaling": lambda: scaling.run(rounds),
        "dispatch": lambda: dispatch.run_all(rounds),
        "flatten": lambda: dispatch.run_flatten(100, rounds),
        "init": lambda: initialize.run(100, few),
        "init under jit": lambda: initialize.run_jitted(100, 2),
        "eager": lambda: eager.run_all(rounds),
        "import": lambda: importing.run_cold(few),
        "beside": lambda: importing.run(rounds),
        "annotations": lambda: annotations.run(blocks, rounds),
    }


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each candidate")
    parser.add_argument("--blocks", type=int, default=50, help="depth of the traced model")
    parser.add_argument("--only", nargs="*", help="parts to run; all unless given")
    parser.add_argument("--json", type=Path, help=f"where to write, such as {RESULTS.name}")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, jax {jax.__version__}, equinox {eqx.__version__}")
    for name, run in parts(args).items():
        if not args.only or name in args.only:
            run()
            if args.json:
                args.json.write_text(json.dumps(_found(args), indent=1) + "\n")


def _found(args: argparse.Namespace) -> dict:
    """The results so far, and where they are from."""
    return {
        "machine": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "equinox": eqx.__version__,
            "backend": jax.default_backend(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[1], 1),
            "rounds": args.rounds,
        },
        "results": _measure.results,
    }


if __name__ == "__main__":
    main()
