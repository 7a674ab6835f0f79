"""Checkpoints survive the death of the process and of the machine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from lost_writes import Disk, clear

from oryxstate.checkpoint import Checkpoints, _disk, _folder

TESTS = Path(__file__).parent


def test_a_run_that_is_killed_ends_like_one_that_is_not():
    command = [sys.executable, str(TESTS / "crash.py"), "--kills", "4", "--seed", "1"]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=environment(), check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.startswith("4 kills in ")


def environment():
    return {**os.environ, "PYTHONPATH": str(TESTS.parent)}


def tree(step):
    return {"w": jnp.full((64,), step), "n": np.arange(5), "step": step}


def is_whole(folder, step):
    path = folder / f"step-{step}"
    files = _folder.manifest(path).files
    return all(_disk.measure(path / name) == file for name, file in files.items())


def losses(tmp_path, monkeypatch, seed, saves=3):
    """Save a few times; the steps found whole and torn after each possible loss of power."""
    (tmp_path / "disk").mkdir()
    folder, draw = tmp_path / "disk" / "run", random.Random(seed)
    announced, seen, torn = [], [], []

    def look(disk):
        for _ in range(2):
            after = tmp_path / "after"
            disk.after_loss(after, draw)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                steps = Checkpoints(after / "run").steps()
            torn.extend(s for s in steps if not is_whole(after / "run", s))
            seen.append((max(announced, default=-1), max(steps, default=-1)))
            clear(after)

    with monkeypatch.context() as patched:
        Disk(tmp_path / "disk", patched, look)
        with Checkpoints(folder, keep_last=1) as run:
            for step in range(saves):
                run.save(step, tree(step))
                run.wait()
                announced.append(step)
    return seen, torn


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_of_what_was_not_synced_tears_no_checkpoint(tmp_path, monkeypatch, seed):
    seen, torn = losses(tmp_path, monkeypatch, seed)
    assert torn == [] and len(seen) > 40
    assert [pair for pair in seen if pair[1] < pair[0]] == []
    assert {last for _, last in seen} == {-1, 0, 1, 2}


def test_without_syncs_of_files_the_simulation_finds_torn_checkpoints(tmp_path, monkeypatch):
    sync = _disk.sync
    monkeypatch.setattr(_disk, "sync", lambda path: sync(path) if path.is_dir() else None)
    seen, torn = losses(tmp_path, monkeypatch, 0)
    assert torn or any(found < announced for announced, found in seen)


def test_without_syncs_of_folders_the_simulation_finds_lost_ones(tmp_path, monkeypatch):
    sync = _disk.sync
    monkeypatch.setattr(_disk, "sync", lambda path: None if path.is_dir() else sync(path))
    seen, _ = losses(tmp_path, monkeypatch, 0)
    assert any(found < announced for announced, found in seen)
