"""The example of training on many processes: the same losses on any number, also after a kill."""

import random
import runpy
import signal
import subprocess
import sys
import time

import crash_processes
import jax
import numpy as np
import pytest
from crash_processes import BOUND, EXAMPLE, SETTINGS, STEPS, life, losses
from jax.sharding import AxisType

import oryxstate as ox
from oryxstate import launch


@pytest.fixture(scope="module")
def example():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield runpy.run_path(str(EXAMPLE))


def test_the_losses_are_those_of_one_process_on_other_numbers_of_processes(
    example, tmp_path, capsys
):
    """One device; and eight, then four processes and two, of which one is killed, then one."""
    draw = random.Random(0)

    def train(devices, folder, steps):
        mesh = jax.make_mesh(
            (devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices]
        )
        example["train"](mesh, tmp_path / folder, steps, 1, "float32")
        return losses(capsys.readouterr().out.splitlines())

    expected = train(1, "straight", STEPS)
    found = train(8, "changing", 2)
    lines, _ = life(tmp_path / "changing", 4, draw.randrange(3), draw)
    found |= losses(lines)
    found |= losses(die_without_a_launcher(tmp_path / "changing"))
    found |= train(1, "changing", STEPS)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-5)
    assert_equal_states(example, tmp_path / "changing", tmp_path / "straight")


def die_without_a_launcher(folder):
    """Two processes, of which the second is killed; what the first has printed.

    It must stop by itself, and say why.
    """
    with launch._reserved_port() as port:
        running = [
            subprocess.Popen(
                [sys.executable, *crash_processes.command(folder), "--heartbeat", "10"],
                env=dict(launch.environment(i, 2, port)) | SETTINGS,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for i in range(2)
        ]
        lines = []
        for line in running[0].stdout:
            lines.append(line)
            if " loss " in line and running[1].poll() is None:
                running[1].send_signal(signal.SIGKILL)
                running[1].wait()
                killed = time.monotonic()
        assert running[0].wait() != 0 and time.monotonic() - killed < 10 + BOUND
    text = "".join(lines)
    assert "heartbeat" in text or "closed by peer" in text, text
    for process in running:
        process.stdout.close()
    return lines


def assert_equal_states(example, one, other):
    into = jax.eval_shape(lambda: example["begin"]("float32"))
    states = [ox.checkpoint.Checkpoints(folder).restore(into) for folder in (one, other)]
    assert [ox.checkpoint.Checkpoints(folder).latest() for folder in (one, other)] == [STEPS] * 2
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_batch_that_is_not_full_is_filled_with_examples_without_weight(example):
    mesh = jax.make_mesh((8,), ("data",))
    batches = [example["load_batch"](step, mesh) for step in range(example["BATCHES"])]
    weights = np.concatenate([np.ravel(batch["weight"]) for batch in batches])
    assert weights.sum() == example["EXAMPLES"] < weights.size
    seen = np.concatenate([np.asarray(b["x"]).reshape(-1, example["FEATURES"]) for b in batches])
    assert len(np.unique(seen[weights > 0], axis=0)) == example["EXAMPLES"]


def test_each_device_holds_its_share(example):
    """Of all arrays but biases, which are nearly all bytes."""
    mesh = jax.make_mesh((8,), ("data",))
    abstract = jax.eval_shape(lambda: example["begin"]("float32"))
    report = ox.sharding.report(abstract, mesh, example["RULES"])
    assert report.bytes_per_device < 1.3 * report.bytes / 8
