"""The decorator `laws`, which turns the laws into pytest tests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import hypothesis
import pytest

from oryxstate.testing import _hypothesis
from oryxstate.testing._bodies import body_of
from oryxstate.testing._check import chosen
from oryxstate.testing._drawn import cases
from oryxstate.testing._laws import LAWS, Case
from oryxstate.testing._search import SEED, Draws, replay, search, search_again, settings_of
from oryxstate.testing._tally import Tally

MAX_EXAMPLES = 5
BODY = "body"


def laws(
    subject: Any,
    inputs: Any = None,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    batched: bool | str | None = None,
    tolerance: float | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a function into tests: one for each law, and one for the body of the function.

    Hypothesis draws modules and inputs for each test. If a law applies to none of them, its test is
    skipped with the reason.

    Args:
        subject: a class of modules, a model of any library (see `check_module`), a
            `TemplateExample`, or a strategy of one of the two.
        inputs: the arguments of a call as a tuple, a strategy of `(args, kwargs)`, or a function
            that returns one of the two for a module; by default `oryxstate.testing.inputs` draws
            them by the annotations.
        only: the names of laws to check, all of `LAWS` by default.
        skip: the names of laws to leave out.
        expected_failures: the names of laws that are known not to hold, with the reason. Their
            tests are reported as failing as expected; one that passes is a failure.
        batched: whether to map the calls over examples; by default they are if inputs are drawn and
            a layer sees the whole batch, such as `nn.BatchNorm`. A string names the mapped axis.
        tolerance: how far floating-point results may be apart (see `check_module`).

    Returns:
        A decorator of a function, or of a method of a test class, that takes the `Case`. Its body
        is checked on the same modules and inputs as the laws: `case.module`, `case.args`,
        `case.kwargs`. Further arguments are fixtures of pytest, or parameters of
        `pytest.mark.parametrize`; all examples of one test share their values. With
        `hypothesis.settings` above or below, those of them hold that differ from the loaded
        profile; for just as many examples as the profile has, give `--ox-max-examples`.

    Raises:
        ValueError: for a law that does not exist.
        TypeError: for a function that does not take a case, an `async def`, or one with `yield`.

    Examples:
        A file of tests:

        >>> import jax.numpy as jnp
        >>> from jaxtyping import Array, Float
        >>> import oryxstate as ox
        >>> from oryxstate.testing import laws
        >>> class Scale(ox.Module):
        ...     factor: Float[Array, " n"] = ox.param()
        ...     def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        ...         return self.factor * x
        >>> @laws(Scale)
        ... def test_scale(case):
        ...     (x,) = case.args
        ...     assert not case.module(jnp.zeros_like(x)).any()
    """
    expected = expected_failures or {}
    names = chosen(only, skip, expected)
    params = [
        pytest.param(name, id=name, marks=pytest.mark.ox_law(name=name)) for name in [*names, BODY]
    ]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        body = body_of(test)

        @functools.wraps(test)
        def run(*owner: Any, **given: Any) -> None:
            __tracebackhide__ = True  # pytest then shows the frame of the law or the body
            law, request = _given(test, given)
            own = {name: value for name, value in given.items() if name in body.fixtures}

            def check(case: Case) -> None:
                __tracebackhide__ = True
                LAWS[law](case) if law in LAWS else body.check(case, owner, own)

            tally = Tally(law, check, subject, expected if law != BODY else {})
            failed = True
            try:
                checked = _check_law if law in LAWS else _check_body
                options = _settings(run, request.config)
                checked(tally, drawn, options, _seed(request.config), request.node.nodeid)
                failed = False
            finally:
                if law != BODY:
                    tally.record(request.node, len(names), failed=failed)
            tally.conclude()

        drawn = Draws(cases(subject, inputs, batched=batched, tolerance=tolerance))
        del run.__wrapped__  # its argument is not a fixture
        own = (name for name in ("law", "request") if name not in body.fixtures)
        run.__signature__ = body.signature(*own)  # type: ignore[attr-defined]
        run.accept_settings = lambda: _hypothesis.accept_settings(run)  # type: ignore[attr-defined]
        return pytest.mark.parametrize("law", params)(run)

    return decorate


def _check_law(
    tally: Tally, drawn: Draws, options: hypothesis.settings, seed: int | None, key: str
) -> None:
    """Check a law: on what failed in an earlier run, then on the cases that all laws share."""
    __tracebackhide__ = True
    replay(tally.run, drawn.strategy, options, key)
    for case in drawn.cases(options, seed):
        try:
            tally.run(case)
        except Exception as error:
            search_again(error, tally.run, drawn.strategy, options, seed, key)


def _check_body(
    tally: Tally, drawn: Draws, options: hypothesis.settings, seed: int | None, key: str
) -> None:
    """Check a body, in which functions of Hypothesis such as `note` may be called."""
    __tracebackhide__ = True
    search(tally.run, drawn.strategy, options, seed, key)


def _given(test: Any, given: dict[str, Any]) -> tuple[str, pytest.FixtureRequest]:
    """Return the law and the request.

    Raises:
        TypeError: if a runner other than pytest calls the test.
    """
    if "law" not in given:
        raise TypeError(
            f"`{test.__name__}` is several tests, one for each law, which pytest runs; a "
            "`unittest.TestCase` has no such tests. Write a plain class or a function, and run "
            "`pytest`."
        )
    return given["law"], given["request"]


def _settings(run: Any, config: pytest.Config) -> hypothesis.settings:
    """Return the settings of a test: those of `@hypothesis.settings` go before our own."""
    changed = _hypothesis.changed_settings(run)
    given = config.getoption("--ox-max-examples", None)
    if given is not None:
        changed["max_examples"] = given
    return hypothesis.settings(settings_of(MAX_EXAMPLES), **changed)


def _seed(config: pytest.Config) -> int | None:
    """Return the seed of the draws; None if Hypothesis chooses it, or was told one."""
    if config.getoption("--hypothesis-seed", None) is not None:
        return None
    given = config.getoption("--ox-seed", None)
    return SEED if given is None else None if given == "random" else int(given)
