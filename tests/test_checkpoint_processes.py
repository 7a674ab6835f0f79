"""Checkpoints of several processes: whole for all of them, or an error in all of them."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import several_processes

import oryxstate as ox
from oryxstate.checkpoint import _pieces

TESTS = Path(__file__).parent


def launch(processes, *command):
    """Run a program in several processes; what it printed, and its exit status."""
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "JAX_NUM_CPU_DEVICES": "1"}
    env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles faster
    # As `-m oryxstate.launch`, which would import JAX for nothing.
    launcher = [sys.executable, "-P", str(TESTS.parent / "oryxstate/launch.py"), "--processes"]
    run = subprocess.run(
        [*launcher, str(processes), *map(str, command)],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )
    return run.stdout, run.returncode


def test_two_processes(tmp_path):
    mesh = jax.make_mesh((4,), ("d",), devices=jax.devices()[:4])
    ox.checkpoint.save(tmp_path / "alone", several_processes.tree(mesh))
    kept = tmp_path / "run/step-2"
    printed, status = launch(2, TESTS / "several_processes.py", tmp_path)
    assert status == 0, printed
    cases = [n for n, f in vars(several_processes).items() if {"folder", "me"} <= parameters(f)]
    assert len(cases) == 9
    assert all(f"[{i}] {case}" in printed.splitlines() for case in cases for i in range(2))
    # What they have saved, this process reads, over as many devices as it likes.
    back = ox.checkpoint.restore(kept, several_processes.tree(mesh))
    several_processes.assert_same(back, several_processes.tree(mesh))
    whole = ox.checkpoint.restore(
        kept, {**several_processes.tree(mesh), **several_processes.values()}
    )
    for name, value in several_processes.values().items():
        np.testing.assert_array_equal(whole[name], value)
    damaged = kept / "arrays" / "1-0"
    shutil.rmtree(damaged)
    with pytest.raises(ox.CheckpointError, match=r"its file arrays/1-0/\S+ is missing"):
        ox.checkpoint.restore(kept, several_processes.tree(mesh))


def parameters(function):
    return set(inspect.signature(function).parameters) if inspect.isfunction(function) else set()


def test_blocks_of_pieces():
    whole = np.arange(30).reshape(5, 6)
    corners = [(0, 0), (0, 4), (3, 0), (3, 4)]
    shapes = [(3, 4), (3, 2), (2, 4), (2, 2)]
    pieces = _pieces.Pieces(
        (5, 6), [(at, whole[_pieces.block(at, n)]) for at, n in zip(corners, shapes, strict=True)]
    )
    np.testing.assert_array_equal(pieces.whole(), whole)
    for index in [
        (slice(2, 4), slice(3, 5)),
        (slice(None), slice(5, None)),
        (slice(0, 1), slice(6)),
    ]:
        np.testing.assert_array_equal(pieces[index], whole[index])
    scalar = _pieces.Pieces((), [((), np.array(3))])
    assert scalar.whole() == 3
