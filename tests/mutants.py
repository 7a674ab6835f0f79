"""Mutants of the rules, which the tests must kill: `nox -s mutants`, with `-- --list` or words."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent
FAILED = 1  # pytest's exit status when tests ran and some failed
MINUTES = 10  # for a test that no longer ends


def mutated(mutation: Mutation | None, folder: Path) -> None:
    """Copy the package and its tests to a folder, and break the copy."""
    hidden = shutil.ignore_patterns("__pycache__")
    for part in ("oryxstate", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=hidden)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mutation is not None:
        path = folder / "oryxstate/_effects" / mutation.file
        text = path.read_text()
        if text.count(mutation.old) != 1:
            raise ValueError(f"{mutation.what}: {mutation.file} does not hold once: {mutation.old}")
        path.write_text(text.replace(mutation.old, mutation.new))


def tested(mutation: Mutation | None, tests: tuple[str, ...]) -> tuple[int, str]:
    """Pytest's exit status on a copy, and the end of what it says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutated(mutation, folder)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
            check=False,
        )
        return done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def killed(mutation: Mutation) -> bool:
    """Whether tests fail, and say which."""
    start = time.perf_counter()
    status, said = tested(mutation, mutation.tests)
    seconds = time.perf_counter() - start
    if status == FAILED:
        by = next((line for line in said.splitlines() if line.startswith("FAILED")), said)
        print(f"killed in {seconds:3.0f} s: {mutation.what}\n    {by[:160]}", flush=True)
        return True
    print(f"SURVIVED (status {status}): {mutation.what}\n{said}", flush=True)
    return False


def sound(tests: tuple[str, ...]) -> bool:
    """Whether these tests pass while nothing is broken."""
    status, said = tested(None, tests)
    if status != 0:
        print(f"without a mutation, {' '.join(tests)} has status {status}:\n{said}", flush=True)
    return status == 0


def main() -> None:
    """Run each mutation's tests with it, and all of these tests without any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutations that are described so")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if all(word in m.what for word in args.words)]
    if args.list:
        print("\n".join(f"{m.file}: {m.what}" for m in chosen))
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        dead = sum(pool.map(killed, chosen))
        fine = all(pool.map(sound, sorted({m.tests for m in chosen})))
    print(f"{dead} of {len(chosen)} mutants killed")
    sys.exit(not chosen or dead < len(chosen) or not fine)


if __name__ == "__main__":
    main()
