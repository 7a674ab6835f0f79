"""The report of `python -m oryxstate`, and the version."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest

import oryxstate as ox
from oryxstate import __main__ as report
from oryxstate import _interception, _releases, _selftest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def printed(capsys) -> str:
    report.main()
    return capsys.readouterr().out


def test_it_runs_as_a_program():
    run = [sys.executable, "-m", "oryxstate"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"oryxstate {ox.__version__}\n  {ROOT / 'oryxstate'}\n")
    headings = re.findall(r"^\S.*$", done.stdout, re.MULTILINE)
    assert [heading.split()[0] for heading in headings] == [
        *("oryxstate", "Python", "JAX", "packages", "replaced", "self-test", "documentation")
    ]


def test_it_tells_what_a_bug_report_needs(capsys, monkeypatch):
    monkeypatch.setenv("JAX_SOMETHING", "1")
    text = printed(capsys)
    assert f"JAX {jax.__version__}\n  one of the releases that" in text
    assert f"devices: {jax.device_count()} (cpu, cpu)" in text
    assert "enable_x64=False" in text and "numpy_rank_promotion=raise" in text
    assert "JAX_SOMETHING=1\n" in text
    assert f"equinox {report.importlib.metadata.version('equinox')}\n" in text
    assert "passed: " in text and "jax.lax.scan" in text


def test_an_untested_jax_and_a_missing_package_are_named(capsys, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.99.0")
    monkeypatch.setattr(report, "OPTIONAL", ("a-package-that-is-not-there",))
    text = printed(capsys)
    assert f"not tested with this oryxstate: {_releases.OLDEST} to {_releases.NEWEST} are" in text
    assert "a-package-that-is-not-there is not installed" in text


def test_no_devices(capsys, monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu'")

    monkeypatch.setattr(jax, "devices", devices)
    assert "no devices: Unable to initialize backend 'tpu'" in printed(capsys)


def test_what_the_self_test_finds_is_shown_and_sets_the_status(capsys, monkeypatch):
    monkeypatch.setattr(_selftest, "wrong", lambda: iter(["state through `jax.jit` raises"]))
    assert report.main() == 1
    assert "self-test\n  state through `jax.jit` raises\n" in capsys.readouterr().out


def test_what_is_replaced_in_jax_and_by_whom(capsys, monkeypatch):
    text = " ".join(printed(capsys).split())
    assert "while a root call is open: `bind_with_trace` of call_hi_primitive, cond, " in text
    assert "and jax._src.pjit._pjit_call_impl_python" in text
    assert "by another library: none of these" in text

    def bind_with_trace(*args):  # of this test
        raise AssertionError

    scan = jax.extend.core.primitives.scan_p
    monkeypatch.setitem(vars(scan), "bind_with_trace", bind_with_trace)
    assert "by another library: scan.bind_with_trace\n" in printed(capsys)
    assert _interception.replaced()["scan.bind_with_trace"] is bind_with_trace


def test_each_dependency_is_listed():
    groups = PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()
    listed = [line for group in groups for line in group]
    names = {re.split("[><=]", line)[0] for line in listed}
    assert names - {"jax"} == {*report.REQUIRED, *report.OPTIONAL} - {"jaxlib"}


@pytest.mark.parametrize("name", ["dev", "0.12.0.dev1"])
def test_a_development_version_of_jax_is_untested(capsys, monkeypatch, name):
    monkeypatch.setattr(jax, "__version__", name)
    assert "not tested with this oryxstate" in printed(capsys)
