"""Training in several processes, of which one is killed again and again.

`python tests/crash_processes.py --kills 20`: each kill hits a random process at a random step. The
others must stop soon, and the next start goes on from the last checkpoint, bit for bit, so that the
run ends as if none had been killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/examples/distributed.py"
STEPS = 12
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "JAX_NUM_CPU_DEVICES": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles faster
}
BOUND = 60.0  # seconds in which the others must have stopped, on a machine that is busy


def command(folder):
    arguments = ["--folder", str(folder), "--steps", str(STEPS), "--every", "1"]
    return [str(EXAMPLE), *arguments, "--dtype", "float32"]


def start(folder, processes):
    """Launch the example; the launcher, whose output is a pipe."""
    # As `-m oryxstate.launch`, which would import JAX for nothing.
    launcher = [sys.executable, "-P", str(ROOT / "oryxstate/launch.py")]
    return subprocess.Popen(
        [*launcher, "--processes", str(processes), *command(folder)],
        env={**os.environ, **SETTINGS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(process):
    """The numbers of the processes that a process has started, in the order of their start."""
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def losses(lines):
    """Loss by step, of what the example prints."""
    found = [line.split() for line in lines if " loss " in line]
    return {int(words[-3]): float(words[-1]) for words in found}


def life(folder, processes, kill_after, draw):
    """Launch the example, kill one process after some steps; what was printed, and the status.

    Args:
        kill_after: after how many steps, None for never.
    """
    launcher = start(folder, processes)
    limit = threading.Timer(600, launcher.kill)
    limit.start()
    lines, seen, killed = [], 0, 0.0
    for line in launcher.stdout:
        lines.append(line.rstrip())
        seen += " loss " in line
        if kill_after is not None and not killed and seen > kill_after:
            time.sleep(draw.uniform(0, 0.05))
            victim = draw.choice(children(launcher.pid))
            os.kill(victim, signal.SIGSTOP)  # first a straggler, for which the others wait
            time.sleep(0.2)
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
    status = launcher.wait()
    limit.cancel()
    launcher.stdout.close()
    if killed:
        assert status == 137 and time.monotonic() - killed < BOUND, (status, lines)
        assert any("was killed by SIGKILL; the others are stopped" in line for line in lines)
    return lines, status


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as above:
        lines, status = life(Path(above, "straight"), options.processes, None, draw)
        assert status == 0, lines
        expected = losses(lines)
        kills = runs = 0
        while kills < options.kills:
            runs, status, found = runs + 1, None, {}
            while status != 0:
                after = draw.randrange(4) if kills < options.kills else None
                lines, status = life(Path(above, str(runs)), options.processes, after, draw)
                assert status in (0, 137), lines
                kills += status == 137
                found |= losses(lines)
                assert found == {step: expected[step] for step in found}
            assert found == expected
    print(f"{kills} kills in {runs} runs, seed {options.seed}: all went on and ended alike")


if __name__ == "__main__":
    sys.exit(main())
