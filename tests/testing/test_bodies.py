"""What the decorator `laws` may stand on: functions and methods, with fixtures and settings."""

from __future__ import annotations

import asyncio
import functools

import hypothesis
import pytest
from jaxtyping import Array, Float
from test_plugin import outcomes, run

import oryxstate as ox
from oryxstate.testing import laws

FORMS = """
import hypothesis, pytest

@pytest.fixture
def two():
    return 2

class TestScale:
    @laws(Scale, only=["runs"])
    def test_method(self, case, two, ox_key):
        assert two == 2 and ox_key.shape == () and type(self) is TestScale

    @staticmethod
    @laws(Scale, only=[])
    def test_static(case):
        assert case.module.factor.ndim == 1

@pytest.mark.parametrize("i", [0, 1])
@laws(Scale, only=["runs"])
def test_parametrized(i, case):
    assert case.module.factor.ndim + i == 1, "by the parameter"

drawn = []

@hypothesis.settings(max_examples=3)
@laws(Scale, only=[])
def test_above(case, request):
    drawn.append(case)

@laws(Scale, only=[])
@hypothesis.settings(max_examples=2)
def test_below(case):
    drawn.append(case)

def test_counted():
    assert len(drawn) == 5
"""


class Scale(ox.Module):
    factor: Float[Array, " n"] = ox.param()

    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.factor * x


def test_what_may_be_decorated(tmp_path):
    result = run(tmp_path, FORMS)
    assert outcomes(result) == {"passed": 9, "failed": 1}, result.stdout
    for name in ("method[runs]", "method[body]", "static[body]", "parametrized[runs-1]"):
        assert f"test_{name} PASSED" in result.stdout
    assert "test_parametrized[body-1] FAILED" in result.stdout
    assert "by the parameter" in result.stdout


def test_the_command_line_goes_before_settings(tmp_path):
    assert "assert 2 == 5" in run(tmp_path, FORMS, "--ox-max-examples=1").stdout


async def waits(case):
    raise AssertionError


async def waits_and_yields(case):
    yield


def yields(case):
    yield
    raise AssertionError


REFUSED = {
    waits: r"`waits` is an `async def`: nobody would run its body\..*asyncio\.run\(check\(case\)\)",
    waits_and_yields: r"is an `async def` with `yield`",
    yields: r"is a function with `yield`: nobody would run its body",
    staticmethod(print): r"this is a staticmethod: write `@staticmethod` above `@laws\(",
    classmethod(print): r"this is a classmethod: make it a method",
    Scale: r"this is a class: decorate its methods",
    (lambda: None): r"must take the case as its first argument",
}


@pytest.mark.parametrize("test", REFUSED)
def test_what_may_not(test):
    with pytest.raises(TypeError, match=f"(?s){REFUSED[test]}"):
        laws(Scale)(test)


def test_a_method_without_a_case():
    class Test:
        def test_it(self): ...

    with pytest.raises(TypeError, match=r"`def test_it\(self, case\): ...`"):
        laws(Scale)(Test.test_it)


@pytest.mark.parametrize("hidden", [waits, yields])
def test_what_a_wrapper_hides_is_found_when_it_runs(hidden):
    @functools.wraps(hidden)
    def wrapper(case):
        return hidden(case)

    del wrapper.__wrapped__
    with pytest.raises(TypeError, match=r"returns (coroutine|generator): nobody would run its"):
        run_body(laws(Scale, only=[])(wrapper))


def run_body(test):
    class Request:
        class config:
            getoption = staticmethod(lambda name, default: default)

        class node:
            nodeid = "a test"

    test(law="body", request=Request)


def test_what_is_no_pytest_runs_no_laws():
    @laws(Scale)
    def test(case): ...

    with pytest.raises(TypeError, match=r"several tests, one for each law, which pytest runs; a"):
        test()


def test_asyncio_runs_in_a_body():
    async def check(case):
        assert case.module.factor.ndim == 1
        seen.append(case)

    seen = []

    @laws(Scale, only=[])
    def test(case):
        asyncio.run(check(case))

    run_body(test)
    assert len(seen) == 5


def test_hypothesis_settings_are_read_and_accepted():
    @hypothesis.settings(deadline=7)
    @laws(Scale)
    def test(case): ...

    test.accept_settings()
    assert not hasattr(test, "_hypothesis_internal_settings_applied")
