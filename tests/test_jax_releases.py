"""A JAX that no test has seen is examined once, then taken with a warning, or refused."""

from __future__ import annotations

import json
import pathlib
import re
import sys
import tomllib
import types
import warnings
from typing import Any

import jax
import jax.extend.core as jex
import pytest
from jax.extend.core import primitives

from oryxstate import _releases, _selftest

FUTURE = "0.99.0"


@pytest.fixture
def future(monkeypatch, tmp_path):
    """JAX says that it is a release of the future; where it keeps what is remembered."""
    pretend(monkeypatch, FUTURE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(_releases.importlib.metadata, "version", lambda name: "1.2.3")
    return tmp_path / "oryxstate"


def pretend(monkeypatch, version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    monkeypatch.setattr(jax, "__version__", version)
    monkeypatch.setattr(jax, "__version_info__", numbers)


def imported() -> list[str]:
    """What the import does about this JAX: its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        _releases.check_before_the_import(jax.config)
        _releases.check_after_the_import(_selftest.wrong)
    return [str(warning.message) for warning in found]


def refusal() -> str:
    with pytest.raises(ImportError) as error:
        imported()
    return str(error.value)


# Releases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", _releases.TESTED)
def test_a_release_that_was_tested_is_not_examined(version, monkeypatch):
    pretend(monkeypatch, version)
    assert not _releases.to_be_examined()


ROOT = pathlib.Path(__file__).parents[1]
NOXFILE = (ROOT / "noxfile.py").read_text()


def in_the_noxfile(name: str, **names) -> Any:
    """The value that the noxfile, which imports nox, gives a constant."""
    (found,) = re.findall(rf"^{name} = (.*?)(?=^\S*\w)", NOXFILE, re.DOTALL | re.MULTILINE)
    return eval(found.strip(), {"Path": pathlib.Path, **names})


def test_each_release_is_a_row_of_the_matrix():
    matrix = NOXFILE.split("# Every release that ")[1].split("def matrix")[0]
    assert tuple(re.findall(r'\("3\.\d+", "([\d.]+)"\)', matrix)) == _releases.TESTED


def test_each_python_is_a_row_of_the_tests():
    """Of those that pyproject.toml names; where only one is found, all tests run on it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    pythons, releases = zip(*in_the_noxfile("ROWS"), strict=True)
    assert list(pythons) == named
    assert (releases[0], releases[-1]) == (_releases.OLDEST, _releases.NEWEST)
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text()
    assert f"python: {json.dumps(named)}" in nightly


def test_tests_that_are_treated_apart_exist(monkeypatch):
    """A file that is renamed would be left out on older releases, or no longer be."""
    monkeypatch.chdir(ROOT)
    of_layers = in_the_noxfile("OF_LAYERS")
    assert all(pathlib.Path(f"tests/nn/{name}.py").exists() for name in of_layers)
    above = in_the_noxfile("ABOVE", OF_LAYERS=of_layers)
    assert all(list(pathlib.Path().glob(pattern)) for pattern in above)
    assert len(above) > 30


@pytest.mark.parametrize("version", ["0.10.9", "0.12.1", "0.13.0", "1.0.0", "0.12.0.dev20260101"])
def test_any_other_is_examined(version, monkeypatch, future):
    pretend(monkeypatch, version)
    assert _releases.to_be_examined()


@pytest.mark.parametrize("version", ["0.4.38", "0.9.2"])
def test_an_older_one_is_refused(version, monkeypatch):
    pretend(monkeypatch, version)
    assert refusal() == (
        f"oryxstate works with JAX 0.10.0 and later, but JAX {version} is installed. "
        "Run `pip install 'jax>=0.10.0'`."
    )


def test_an_unfinished_implementation_is_refused():
    text = r"with JAX_SCAN3=1, an implementation of `lax.scan` .*update\('jax_scan3', False\)"
    with pytest.raises(ImportError, match=text):
        _releases.check_before_the_import(types.SimpleNamespace(jax_scan3=True))
    config = types.SimpleNamespace(jax_custom_vjp3=True, jax_remat3=True, jax_custom_jvp3=True)
    _releases.check_before_the_import(config)


# A future JAX that works --------------------------------------------------------------------------


def test_a_future_jax_that_passes_is_warned_of_once(future):
    newest = re.escape(_releases.NEWEST)
    (warning,) = imported()
    assert re.fullmatch(
        rf"oryxstate has not been tested with JAX 0\.99\.0, only with releases up to {newest}\. "
        r"Its self-test has passed, so it will most likely work; if it does not, run "
        rf"`pip install 'jax>=0\.10\.0,<={newest}'`, and report it\.",
        warning,
    )
    assert imported() == []
    (record,) = future.iterdir()
    assert record.name.startswith("oryxstate-1.2.3-jax-0.99.0")


def test_what_is_remembered_is_of_one_release_of_each(future, monkeypatch):
    imported()
    pretend(monkeypatch, "0.99.1")
    assert len(imported()) == 1
    monkeypatch.setattr(_releases.importlib.metadata, "version", lambda name: "1.2.4")
    assert len(imported()) == 1
    assert imported() == []


@pytest.mark.parametrize("kept", ["a file", "not a folder"])
def test_a_folder_that_cannot_be_written_costs_only_time(kept, future, monkeypatch):
    if kept == "a file":
        future.write_text("in the way")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert len(imported()) == 1
    assert len(imported()) == 1


@pytest.mark.parametrize("missing", ["the home", "the version"])
def test_without_a_place_or_a_version_nothing_is_remembered(missing, future, monkeypatch):
    def fail(*_):
        if missing == "the home":
            raise RuntimeError
        raise _releases.importlib.metadata.PackageNotFoundError

    if missing == "the home":
        monkeypatch.setattr(_releases.pathlib.Path, "home", fail)
    else:
        monkeypatch.setattr(_releases.importlib.metadata, "version", fail)
    assert len(imported()) == 1
    assert len(imported()) == 1


HOME = pathlib.Path("/home/me")


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {}, HOME / ".cache/oryxstate"),
        ("linux", {"XDG_CACHE_HOME": "/fast"}, pathlib.Path("/fast/oryxstate")),
        ("linux", {"XDG_CACHE_HOME": "relative"}, HOME / ".cache/oryxstate"),
        ("darwin", {"XDG_CACHE_HOME": "/fast"}, HOME / "Library/Caches/oryxstate"),
        ("win32", {"LOCALAPPDATA": "/local"}, pathlib.Path("/local/oryxstate/Cache")),
        ("win32", {}, HOME / "AppData/Local/oryxstate/Cache"),
    ],
)
def test_the_folder_follows_the_platform(platform, environment, folder):
    assert _releases.cache_folder(platform, environment, HOME) == folder


# A future JAX that does not work ------------------------------------------------------------------


def test_a_name_that_was_renamed_is_named(future, monkeypatch):
    monkeypatch.setattr(jex, "top_trace", jex.find_top_trace, raising=False)
    monkeypatch.delattr(jex, "find_top_trace")
    assert refusal() == (
        "oryxstate does not work with JAX 0.99.0, a release that it was not tested with: "
        "`jax.extend.core.find_top_trace` is not there. Install a JAX that it was tested with, "
        f"`pip install 'jax>=0.10.0,<={_releases.NEWEST}'`, or a newer oryxstate."
    )
    assert not future.exists()


def test_a_signature_that_changed_is_named(future, monkeypatch):
    original = jex.Primitive.bind_with_trace

    def bind_with_trace(self, trace, args, params, /):
        return original(self, trace, args, None, params)

    monkeypatch.setattr(jex.Primitive, "bind_with_trace", bind_with_trace)
    said = refusal()
    assert "`jax.extend.core.Primitive.bind_with_trace` is called in another way" in said
    assert "(self, trace, args, params, /)`: too many positional arguments" in said


@pytest.mark.parametrize("name", ["scan", "cond", "jit"])
def test_a_bind_that_is_bypassed_is_named(name, future, monkeypatch):
    """Where JAX no longer calls the method in whose place ours stands, nobody asks a rule."""
    primitive = getattr(primitives, f"{name}_p")

    def bind(*args, **params):
        trace = jex.find_top_trace(args)
        avals = [jax.typeof(x) for x in args]
        with jex.take_current_trace():
            return type(primitive).bind_with_trace(primitive, trace, args, avals, params)

    monkeypatch.setattr(primitive, "bind", bind)
    said = refusal()
    public = {"scan": "jax.lax.scan", "cond": "jax.lax.cond", "jit": "jax.jit"}[name]
    assert f"state through `{public}` raises EffectError: state 'inner.total' is" in said


def test_a_result_that_is_wrong_is_named(future, monkeypatch):
    """A scan that runs once too often."""
    original = jax.lax.scan

    def scan(f, init, xs=None, length=None, **options):
        return original(f, init, xs, None if length is None else length + 1, **options)

    monkeypatch.setattr(_selftest.lax, "scan", scan)
    said = refusal()
    assert "state through `jax.lax.scan` gives " in said
    assert " instead of 1050.0, 105.0. Install" in said


def test_what_fails_is_not_remembered(future, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(_selftest, "PROGRAMS", {"jax.jit": _wrong()})
        assert "state through `jax.jit` gives 10.0, 5.0 instead of 10.0, 6.0." in refusal()
    assert len(imported()) == 1


def _wrong() -> _selftest.Program:
    return _selftest.PROGRAMS["jax.jit"]._replace(results=(10.0, 6.0, None))


def test_what_numpy_does_not_know_jax_computes(monkeypatch):
    monkeypatch.setattr(_selftest, "_FIRST_ORDER", {})
    assert list(_selftest.wrong()) == []
