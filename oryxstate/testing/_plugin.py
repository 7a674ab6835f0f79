"""The pytest plugin: options, a marker and fixtures.

In an installed package this file is the module `pytest_oryxstate`. Pytest imports it before the
first conftest.py; if it imported JAX, environment variables set in a conftest.py would come too
late. For the same reason the imports of JAX are inside the functions.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "oryxstate"  # of the reports of tests, as in `_tally.py`
STRICT = "promotion", "rank", "nans"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line."""
    group = parser.getgroup("oryxstate", "models of oryxstate")
    group.addoption(
        "--ox-max-examples",
        type=int,
        metavar="N",
        help="how many modules with inputs each law of `oryxstate.testing.laws` is checked on",
    )
    group.addoption(
        "--ox-seed",
        type=_seed,
        metavar="N",
        help="the seed from which modules and inputs are drawn for `oryxstate.testing.laws`, 0 by "
        "default; `random` for others in each run",
    )
    group.addoption(
        "--ox-min-laws",
        type=int,
        default=0,
        metavar="N",
        help="fail if fewer laws than this ran on a model of `oryxstate.testing.laws`",
    )
    group.addoption(
        "--ox-report",
        action="append",
        default=[],
        metavar="PATH",
        help="write which laws hold for which model to a .json or .md file (may be given several "
        "times)",
    )
    group.addoption(
        "--ox-jax-matrix",
        action="store_true",
        help="print the Pythons and JAX releases to test with, as JSON, and do nothing else",
    )
    group.addoption(
        "--ox-strict",
        action="append",
        default=[],
        choices=STRICT,
        help="let JAX refuse implicit promotion of dtypes, of ranks, or NaNs in each test "
        "(may be given several times)",
    )
    group.addoption(
        "--ox-check-leaks", action="store_true", help="let JAX look for leaked tracers in each test"
    )
    group.addoption(
        "--ox-check-annotations",
        action="store_true",
        help="check the annotations of modules when they are made and called",
    )


def _seed(given: str) -> str:
    """Return a seed, or "random"."""
    if given != "random" and not given.isdecimal():
        raise pytest.UsageError(f"--ox-seed is a number or `random`, got {given!r}.")
    return given


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of laws."""
    config.addinivalue_line(
        "markers",
        "ox_law(name): the law that a test of `oryxstate.testing.laws` checks; choose some with "
        "`-m \"ox_law(name='jit_is_eager')\"`.",
    )
    examples = config.getoption("--ox-max-examples")
    if examples is not None and examples < 1:
        raise pytest.UsageError(f"--ox-max-examples must be positive, got {examples}.")
    for path in config.getoption("--ox-report") or ():
        if Path(path).suffix not in (".json", ".md"):
            raise pytest.UsageError(f"--ox-report writes a .json or .md file, got {path}.")
    if not hasattr(config, "workerinput"):  # of pytest-xdist, whose workers send their reports
        config.pluginmanager.register(Summary(config), "oryxstate-summary")


class Summary:
    """What was found of the laws in a run, in all of its processes."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.records: list[Any] = []
        self.faults: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the record of a test."""
        if report.when == "call":
            self.records += [found for name, found in report.user_properties if name == PROPERTY]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports, and let a run fail in which too few laws ran."""
        wanted = self.config.getoption("--ox-report")
        if self.config.option.collectonly or not (self.records or wanted):
            return
        from oryxstate.testing import _summary

        models = _summary.collected(self.records)
        for path in map(Path, wanted or ()):
            write = _summary.as_json if path.suffix == ".json" else _summary.as_markdown
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write(models), encoding="utf-8")
        least = self.config.getoption("--ox-min-laws") or 0
        self.faults = [fault for each in models if (fault := each.fault(least))]
        if self.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the summary."""
        if not self.records:
            return
        from oryxstate.testing import _summary

        terminalreporter.section("laws of models")
        for line in _summary.as_text(_summary.collected(self.records)):
            terminalreporter.write_line(line)
        for fault in self.faults:
            terminalreporter.write_line(f"FAILED {fault}", red=True)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Print the matrix, if asked to."""
    if not config.getoption("--ox-jax-matrix"):
        return None
    from oryxstate.testing._matrix import jax_matrix

    print(json.dumps(jax_matrix()))
    return 0


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let `@hypothesis.settings` be on a test of `laws`."""
    accept = getattr(getattr(item, "obj", None), "accept_settings", None)
    if accept is not None:
        accept()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run a test under the options."""
    with contextlib.ExitStack() as stack:
        for context in _contexts(item.config):
            stack.enter_context(context)
        return (yield)


def _contexts(config: pytest.Config) -> Iterator[contextlib.AbstractContextManager]:
    for name in config.getoption("--ox-strict") or ():
        yield _strict(name)
    if config.getoption("--ox-check-leaks"):
        import jax

        yield jax.checking_leaks()
    if config.getoption("--ox-check-annotations"):
        from oryxstate._annotations._setting import check_annotations

        yield check_annotations()


def _strict(name: str) -> contextlib.AbstractContextManager:
    import jax

    if name == "promotion":
        return jax.numpy_dtype_promotion("strict")
    return jax.numpy_rank_promotion("raise") if name == "rank" else jax.debug_nans(True)


@pytest.fixture
def ox_key(request: pytest.FixtureRequest) -> Any:
    """Return a random key of the test's own, the same in each run."""
    import jax

    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def ox_tolerance() -> Callable[[Any], dict[str, float]]:
    """Return tolerances for a dtype: `np.testing.assert_allclose(..., **ox_tolerance(x))`.

    Two thirds of the digits agree, as in the laws.
    """
    import jax.numpy as jnp

    def tolerance(x: Any) -> dict[str, float]:
        allowed = float(jnp.finfo(getattr(x, "dtype", x)).eps) ** (2 / 3)
        return {"rtol": allowed, "atol": allowed}

    return tolerance
