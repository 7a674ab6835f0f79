"""The search for a case that fails, and for a smaller one, in bounded time."""

from __future__ import annotations

import contextlib
import math
import time
import unittest
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
from hypothesis import Phase
from hypothesis.errors import Flaky

from oryxstate.testing import _hypothesis
from oryxstate.testing._laws import Case
from oryxstate.testing._shown import code

SECONDS = 10.0  # from the first failure on
SEED = 0
_ONCE = "But the same modules and inputs, drawn again, pass: what ran before matters, such as"

Strategy = Any
Check = Callable[[Case], None]


def settings_of(max_examples: int, **more: Any) -> hypothesis.settings:
    """Return the settings of Hypothesis for laws, on top of the profile that is loaded."""
    return hypothesis.settings(
        max_examples=max_examples,
        phases=set(Phase) - {Phase.explain},
        deadline=None,  # a law compiles
        report_multiple_bugs=False,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        **more,
    )


class _Enough(BaseException):
    """Ends a search; Hypothesis takes any `Exception` for a failure of the test."""


class Draws:
    """Cases that are drawn once, so that several laws are checked on each.

    Args:
        strategy: of the cases.
    """

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self._known: dict[Any, list[Case]] = {}

    def cases(self, settings: hypothesis.settings, seed: int | None) -> list[Case]:
        """Return the cases that are drawn first with these settings and this seed."""
        key = settings.max_examples, seed, jax.config.jax_enable_x64  # type: ignore[attr-defined]
        if key not in self._known:
            found: list[Case] = []

            def each(case: Case) -> None:
                found.append(case)

            only = hypothesis.settings(
                settings, phases=[Phase.generate], derandomize=False, database=None
            )
            _hypothesis.test(each, self.strategy, only, seed)()
            self._known[key] = found
        return self._known[key]


def search(
    check: Check,
    drawn: Strategy,
    settings: hypothesis.settings,
    seed: int | None,
    key: str = "",
    seconds: float = SECONDS,
) -> None:
    """Check drawn cases, and raise the error of the smallest one that fails.

    Args:
        check: raises for a case that fails.
        drawn: the strategy of cases.
        settings: of Hypothesis.
        seed: of the draws; None for others in each run.
        key: under which Hypothesis keeps failing examples.
        seconds: how long to look for a smaller case after the first failure.
    """
    __tracebackhide__ = True
    best = _Best(seconds)

    def each(case: Case) -> None:
        __tracebackhide__ = True
        best.expect_time()
        try:
            check(case)
        except Exception as error:
            best.take(case, error)
            raise

    try:
        _hypothesis.test(each, drawn, settings, seed, key)()
    except _Enough:
        note = f"The search for a smaller example was stopped after {seconds:g} seconds."
        raise _noted(best.error, note) from best.error.__cause__
    except Flaky as error:
        if best.error is None:
            raise
        raise _noted(best.error, f"{_ONCE} a cache or other state of the host.") from error


def replay(check: Check, drawn: Strategy, settings: hypothesis.settings, key: str) -> None:
    """Check the cases that failed in an earlier run."""
    __tracebackhide__ = True
    if settings.database is not None and Phase.reuse in settings.phases:
        with contextlib.suppress(unittest.SkipTest):  # there are none
            only = hypothesis.settings(settings, phases=[Phase.reuse])
            search(check, drawn, only, None, key)


def search_again(
    error: Exception,
    check: Check,
    drawn: Strategy,
    settings: hypothesis.settings,
    seed: int | None,
    key: str = "",
    seconds: float = SECONDS,
) -> None:
    """Raise the error of a smaller case than the one that raised this error.

    Raises:
        Exception: this error, if no case fails that is drawn again.
    """
    __tracebackhide__ = True
    search(check, drawn, settings, seed, key, seconds)
    raise _noted(error, f"{_ONCE} an earlier law, or state of the host.")


class _Best:
    """The error of the smallest case that has failed."""

    def __init__(self, seconds: float):
        self.seconds, self.end, self.size = seconds, math.inf, math.inf
        self.error: Any = None

    def take(self, case: Case, error: Exception) -> None:
        """Keep the error if its case is smaller than those before."""
        if self.error is None:
            self.end = time.monotonic() + self.seconds
        size = len(code(case))
        if size < self.size:
            self.size, self.error = size, error

    def expect_time(self) -> None:
        """Raise `_Enough` if the time is over."""
        if time.monotonic() > self.end:
            raise _Enough


def _noted(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error
