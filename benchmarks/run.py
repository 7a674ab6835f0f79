"""Ours, Equinox and hand-written JAX, interleaved in one process: `nox -s bench`."""

from __future__ import annotations

import argparse
import platform

import annotations
import dispatch
import eager
import equinox as eqx
import importing
import jax
import layers
import scaling
import tracing


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each candidate")
    parser.add_argument("--blocks", type=int, default=50, help="depth of the traced model")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, jax {jax.__version__}, equinox {eqx.__version__}")
    tracing.run(args.blocks, args.rounds)
    layers.run(args.blocks, args.rounds)
    scaling.run(args.rounds)
    for modules in (10, 100, 1000):
        dispatch.run(modules, args.rounds)
    dispatch.run_flatten(100, args.rounds)
    for size in (4, 512):
        eager.run(size, args.rounds)
    importing.run(args.rounds)
    annotations.run(args.blocks, args.rounds)


if __name__ == "__main__":
    main()
