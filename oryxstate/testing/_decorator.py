"""The decorator `laws`, which turns the laws into pytest tests."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import hypothesis
import pytest

from oryxstate.testing._check import chosen
from oryxstate.testing._drawn import cases
from oryxstate.testing._laws import LAWS, Case
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
) -> Callable[[Callable[[Case], None]], Callable[..., None]]:
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
        A decorator of a function of one argument, the `Case`. Its body is checked on the same
        modules and inputs as the laws: `case.module`, `case.args`, `case.kwargs`.

    Raises:
        ValueError: for a law that does not exist.
        TypeError: for a function that takes something else.

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

    def decorate(test: Callable[[Case], None]) -> Callable[..., None]:
        _expect_case(test)
        checks = {**LAWS, BODY: test}

        @functools.wraps(test)
        def run(law: str, request: pytest.FixtureRequest) -> None:
            tally = Tally(law, checks[law], subject, expected if law != BODY else {})
            __tracebackhide__ = True  # pytest then shows the frame of the law or the body

            @hypothesis.settings(
                phases=set(hypothesis.Phase) - {hypothesis.Phase.explain},
                max_examples=_max_examples(request.config),
                deadline=None,  # a law compiles
                report_multiple_bugs=False,
                suppress_health_check=[hypothesis.HealthCheck.too_slow],
            )
            @hypothesis.given(cases(subject, inputs, batched=batched, tolerance=tolerance))
            def each(case: Case) -> None:
                __tracebackhide__ = True
                tally.run(case)

            failed = True
            try:
                each()
                failed = False
            finally:
                if law != BODY:
                    tally.record(request.node, len(names), failed=failed)
            tally.conclude()

        del run.__wrapped__  # its argument is not a fixture
        return pytest.mark.parametrize("law", params)(run)

    return decorate


def _expect_case(test: Callable[..., None]) -> None:
    if len(inspect.signature(test).parameters) != 1:
        raise TypeError(
            f"`{test.__name__}` must take one argument, the case: `@laws(...)` and then "
            f"`def {test.__name__}(case): ...`, with `case.module` and `case.args` in its body."
        )


def _max_examples(config: pytest.Config) -> int:
    given = config.getoption("--ox-max-examples", None)
    return MAX_EXAMPLES if given is None else given
