"""The functions that `laws` decorates: their parameters, and what they may not be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from oryxstate import _signatures

_SYNCHRONOUS = """\
`{name}` is {what}: nobody would run its body. Write a plain function, which runs the rest itself:

    @laws(...)
    def {name}(case):
        {instead}
"""
_KINDS = (
    (inspect.iscoroutinefunction, "an `async def`", "asyncio.run(check(case))"),
    (inspect.isasyncgenfunction, "an `async def` with `yield`", "asyncio.run(check(case))"),
    (inspect.isgeneratorfunction, "a function with `yield`", "assert ...  # and no `yield`"),
)
_OTHERS = {
    type: "a class: decorate its methods",
    staticmethod: "a staticmethod: write `@staticmethod` above `@laws(...)`",
    classmethod: "a classmethod: make it a method, or a staticmethod with `@staticmethod` above",
}


class Body(NamedTuple):
    """A function that checks a case, with fixtures of pytest.

    Attributes:
        function: as it was written.
        case: the name of the parameter for the case.
        method: whether it takes `self` first.
        fixtures: the names of the other parameters.
    """

    function: Callable[..., Any]
    case: str
    method: bool
    fixtures: tuple[str, ...]

    def check(self, case: Any, owner: tuple[Any, ...], fixtures: dict[str, Any]) -> None:
        """Run the function on a case.

        Raises:
            TypeError: if it returns something that would have to be run.
        """
        __tracebackhide__ = True  # from pytest
        result = self.function(*owner, **{self.case: case}, **fixtures)
        if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
            getattr(result, "close", bool)()
            what = f"a function that returns {type(result).__name__}"
            raise TypeError(_refusal(self.function, what, "assert ..."))

    def signature(self, *names: str) -> inspect.Signature:
        """Return the signature of a test with these arguments instead of the case."""
        given = ("self",) * self.method + names + self.fixtures
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(name, kind) for name in given])


def body_of(test: Any) -> Body:
    """Return the parts of a function that `laws` decorates.

    Raises:
        TypeError: for a function that pytest could not run so.
    """
    for kind, what in _OTHERS.items():
        if isinstance(test, kind):
            raise TypeError(f"`laws` decorates a function, and this is {what}.")
    for is_kind, what, instead in _KINDS:
        if is_kind(test):
            raise TypeError(_refusal(test, what, instead))
    names = [
        name
        for name, parameter in _signatures.signature_of(test).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    method = names[:1] == ["self"]
    names = names[method:]
    if not names:
        raise TypeError(
            f"`{test.__name__}` must take the case as its first argument: `@laws(...)` and then "
            f"`def {test.__name__}({'self, ' * method}case): ...`, with `case.module` and "
            "`case.args` in its body. Fixtures of pytest may follow."
        )
    case = "case" if "case" in names else names[0]
    return Body(test, case, method, tuple(name for name in names if name != case))


def _refusal(test: Any, what: str, instead: str) -> str:
    return _SYNCHRONOUS.format(name=test.__name__, what=what, instead=instead)
