"""A launcher of several processes of one program on this machine: `python -m oryxstate.launch`.

    python -m oryxstate.launch --processes 4 train.py --steps 1000

The program calls `jax.distributed.initialize()` without arguments, as it does under Slurm, Open MPI
and Kubernetes; each process then has one GPU. What the processes print comes out with the number of
the process before each line. The first that fails stops the others, and its exit status becomes
that of the launcher. Ctrl-C, SIGTERM and SIGHUP (the terminal is closed) stop all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE = 5.0  # seconds from the signal that asks a process to stop to the one that kills it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a program in several processes, as the arguments say, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m oryxstate.launch",
        description="Run a program in several processes of jax.distributed on this machine.",
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("-m", action="store_true", dest="module", help="the program is a module")
    parser.add_argument("program", help="a Python file, or with -m the name of a module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the program is given")
    given = parser.parse_args(arguments)
    if given.processes < 1:
        parser.error(f"--processes must be at least 1, got {given.processes}")
    if not (given.module or os.path.isfile(given.program)):
        parser.error(f"there is no file '{given.program}'. Give the name of a module with -m.")
    program = ["-m", given.program] if given.module else [given.program]
    start = str(Path(__file__).with_name("_launched.py"))
    return launch([sys.executable, start, *program, *given.arguments], given.processes)


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command in several processes that find each other.

    Args:
        command: the command and its arguments.
        processes: how many processes to start.

    Returns:
        0 if all succeed. Otherwise the exit status of the first that fails, 128 + N if signal N
        killed it; 130 after Ctrl-C, 143 after SIGTERM, and 129 after SIGHUP.
    """
    with _reserved_port() as port, _stopping_at_signals() as stopped:
        running: list[subprocess.Popen[str]] = []
        try:
            for i in range(processes):
                running.append(_start(command, environment(i, processes, port)))
            outputs = [_forward(process, i) for i, process in enumerate(running)]
            status = _wait(running, stopped)
        finally:
            _stop(running)
        for output in outputs:
            output.join(GRACE)  # what a process has started may hold on to the pipe
        return status


def environment(process: int, processes: int, port: int) -> Mapping[str, str]:
    """Return the environment in which `jax.distributed.initialize()` finds the other processes.

    JAX reads the address from variables of its own, and number and count from those of Open MPI.

    Examples:
        >>> from oryxstate.launch import environment
        >>> found = environment(process=1, processes=4, port=1234)
        >>> found["JAX_COORDINATOR_ADDRESS"], found["OMPI_COMM_WORLD_RANK"]
        ('127.0.0.1:1234', '1')
    """
    address = f"127.0.0.1:{port}"
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",  # or a process that is killed loses its last words
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_COORDINATOR_BIND_ADDRESS": address,  # not reachable from other machines
        # That these are set tells JAX to read the rest.
        "OMPI_MCA_orte_hnp_uri": "oryxstate.launch",
        "OMPI_VERSION": "4",
        "OMPI_COMM_WORLD_SIZE": str(processes),
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
    }


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """Yield a free port that no other launch gets meanwhile.

    JAX's coordinator shares it, as gRPC binds with SO_REUSEPORT too; what only binds gets none of
    its connections.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@contextlib.contextmanager
def _stopping_at_signals() -> Iterator[queue.SimpleQueue[int]]:
    """Put signals that stop a program into a queue, but for ignored ones, as under `nohup`."""
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {n: handler for n, handler in before.items() if handler != signal.SIG_IGN}
    for n in before:
        signal.signal(n, lambda number, _: arrived.put(number))
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a group, with what it starts itself
    )


def _forward(process: subprocess.Popen[str], number: int) -> threading.Thread:
    """Copy what a process prints, with its number before each line."""

    def copy(lines: IO[str]) -> None:
        with lines:
            for line in lines:
                _say(f"[{number}] {line.rstrip()}")

    assert process.stdout is not None, "a pipe"
    thread = threading.Thread(target=copy, args=(process.stdout,), daemon=True)
    thread.start()
    return thread


def _say(line: str) -> None:
    print(f"{line}\n", end="", flush=True)  # in one piece, since several threads print


def _wait(running: Sequence[subprocess.Popen[str]], stopped: queue.SimpleQueue[int]) -> int:
    """Wait until all have succeeded or one has failed; return the exit status."""
    while True:
        codes = [process.poll() for process in running]
        for number, code in enumerate(codes):
            if code:
                end = f"ended with status {code}" if code > 0 else f"was killed by {_name(-code)}"
                _say(f"[launch] process {number} {end}; the others are stopped")
                return code if code > 0 else 128 - code
        if None not in codes:
            return 0
        with contextlib.suppress(queue.Empty):
            number = stopped.get(timeout=0.05)
            _say(f"[launch] {_name(number)}: all processes are stopped")
            return 128 + number


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _stop(running: Sequence[subprocess.Popen[str]]) -> None:
    """Ask what still runs to stop, and kill what does not; with all that it has started."""
    # A process that has failed may have left others in its group.
    groups = [process for process in running if process.poll() != 0]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        until = time.monotonic() + GRACE
        for process in groups:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
