"""The launcher of several processes on one machine."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from oryxstate import launch

# Without JAX, these programs start in a moment; test_distributed.py launches some that have it.
NUMBER = 'import os, sys, time; number = int(os.environ["OMPI_COMM_WORLD_RANK"])\n'


@pytest.fixture
def run(tmp_path, capfd, monkeypatch):
    """Launch a program; its exit status, and the lines that came out."""
    monkeypatch.setattr(launch, "GRACE", 0.5)

    def run(code, *arguments, processes=3):
        (tmp_path / "program.py").write_text(NUMBER + code)
        file = str(tmp_path / "program.py")
        status = launch.main(["--processes", str(processes), file, *arguments])
        return status, capfd.readouterr().out.splitlines()

    return run


def test_each_process_has_its_number_and_the_arguments(run):
    code = 'print(sys.argv[1:], __name__)\nprint("no end of line", end="")'
    status, lines = run(code, "--a", "b")
    assert status == 0
    said = ["['--a', 'b'] __main__", "no end of line"]
    assert sorted(lines) == [f"[{n}] {text}" for n in range(3) for text in said]


def test_all_processes_meet_at_one_address_that_is_only_of_this_machine(run):
    names = "JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_BIND_ADDRESS", "OMPI_COMM_WORLD_SIZE"
    status, lines = run(f"print([os.environ[name] for name in {names}])")
    assert status == 0 and len({line[4:] for line in lines}) == 1
    assert lines[0][5:].startswith("'127.0.0.1:") and lines[0].endswith(", '3']")


def test_a_module_of_the_working_directory(run, tmp_path, monkeypatch, capfd):
    (tmp_path / "some_module.py").write_text("import sys; print(sys.argv[1:])")
    monkeypatch.chdir(tmp_path)
    assert launch.main(["--processes", "1", "-m", "some_module", "-x"]) == 0
    assert capfd.readouterr().out == "[0] ['-x']\n"


def test_the_first_failure_stops_the_others_and_gives_its_status(run):
    """Also those that do not listen, and what they have started."""
    began = time.monotonic()
    status, lines = run("""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if number == 1:
    time.sleep(0.3)
    sys.exit(3)
print("child", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
time.sleep(60)
""")
    assert status == 3 and time.monotonic() - began < 20
    assert "[launch] process 1 ended with status 3; the others are stopped" in lines
    children = [int(line.split()[-1]) for line in lines if "child" in line]
    assert len(children) == 2
    until = time.monotonic() + 10  # a signal takes a moment on a busy machine
    while any(map(is_running, children)):
        assert time.monotonic() < until, children
        time.sleep(0.05)


def is_running(process):
    """Whether a process, which is not our own child, runs; one that is dead may not be reaped."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_exception_ends_the_process_at_once_without_handlers_of_the_exit(run):
    """JAX's own handler waits minutes for the other processes."""
    began = time.monotonic()
    status, lines = run("""
import atexit
atexit.register(time.sleep, 60)
if number == 1:
    raise ValueError("no data")
time.sleep(60)
""")
    assert status == 1 and time.monotonic() - began < 20
    trace = [line for line in lines if line.startswith("[1]")]
    assert trace[0] == "[1] Traceback (most recent call last):" and "program.py" in trace[1]
    assert trace[-1] == "[1] ValueError: no data"


def test_sys_exit_with_a_text(run):
    status, lines = run('if number == 0: sys.exit("nothing to do")', processes=1)
    assert status == 1 and lines[0] == "[0] nothing to do"


def test_a_process_that_is_killed(run):
    status, lines = run("os.kill(os.getpid(), 9) if number == 2 else time.sleep(60)")
    assert status == 137
    assert lines == ["[launch] process 2 was killed by SIGKILL; the others are stopped"]


@pytest.fixture
def signalled(run):
    """Launch a program while a signal comes, that was handled otherwise; as `run`."""

    def signalled(number, before, code):
        outside = signal.signal(number, before)
        try:
            timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
            timer.start()
            found = run(code)
            timer.join()
            assert signal.getsignal(number) == before
        finally:
            signal.signal(number, outside)
        return found

    return signalled


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_stop_all(signalled, number, status):
    found, lines = signalled(number, lambda *_: None, "time.sleep(20)")
    assert found == status
    assert lines == [f"[launch] {number.name}: all processes are stopped"]


def test_signals_that_are_ignored_stop_nothing(signalled):
    """As under `nohup`."""
    status, lines = signalled(signal.SIGHUP, signal.SIG_IGN, 'time.sleep(1.5); print("end")')
    assert status == 0 and len(lines) == 3


def test_imports_come_from_where_python_itself_looks(tmp_path, monkeypatch, capfd):
    """Beside the program, which may be a link; not there with PYTHONSAFEPATH."""
    (tmp_path / "program.py").write_text("import sys; print(sys.path[:2])")
    (link := tmp_path / "elsewhere" / "link.py").parent.mkdir()
    link.symlink_to(tmp_path / "program.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    for safe in "", "1":
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        assert launch.main(["--processes", "1", str(link)]) == 0
        found = capfd.readouterr().out
        expected = subprocess.run([sys.executable, link], capture_output=True, text=True)
        assert found == f"[0] {expected.stdout}"


def test_two_launches_never_get_one_port():
    with launch._reserved_port() as one, launch._reserved_port() as other:
        assert one != other
        with socket.socket() as taken, pytest.raises(OSError, match="in use"):
            taken.bind(("127.0.0.1", one))


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--processes", "0", "x.py"], "--processes must be at least 1, got 0"),
        (["--processes", "2", "none.py"], "no file 'none.py'. Give the name of a module with -m."),
        (["program.py"], "--processes"),
    ],
)
def test_wrong_arguments(arguments, text, capsys):
    with pytest.raises(SystemExit) as end:
        launch.main(arguments)
    assert end.value.code == 2 and text in capsys.readouterr().err
