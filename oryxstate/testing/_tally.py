"""The verdicts of one test on the cases that are drawn for it, and what pytest is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from oryxstate.testing._laws import Case, LawError
from oryxstate.testing._verdicts import (
    EXPECTED,
    FAILS,
    HOLDS,
    NOT_APPLICABLE,
    Verdict,
    names_of,
    together,
    unexpected,
    verdict,
)

PROPERTY = "oryxstate"  # of tests, under which the plugin finds their records


class Tally:
    """The verdicts of a law, or of the body of a test, on the cases of one test.

    Args:
        name: of the law.
        check: what is run on each case.
        subject: what cases are drawn from.
        expected: the laws that are expected to fail, with the reasons.
    """

    def __init__(
        self,
        name: str,
        check: Callable[[Case], None],
        subject: Any,
        expected: Mapping[str, str],
    ):
        self.name, self.check, self.subject, self.expected = name, check, subject, expected
        self.verdicts: list[Verdict] = []
        self.case: Case | None = None
        self.fault = "no case could be drawn"  # in words

    def run(self, case: Case) -> None:
        """Check the law on a case.

        Raises:
            LawError: if it does not hold, and is not expected to fail.
        """
        __tracebackhide__ = True  # pytest then shows the frame of the law or the body
        self.case, self.fault = case, "does not hold"
        try:
            self.verdicts.append(verdict(self.name, self.check, case, self.expected))
        except LawError as error:
            self.fault = f"does not hold: {_found(error)}"
            raise

    def record(self, node: Any, laws: int, *, failed: bool) -> None:
        """Leave the verdict with the test, from where pytest carries it to the end of the run.

        Args:
            node: the test.
            laws: how many laws are checked on the model, each in a test of its own.
            failed: whether the law does not hold.
        """
        model, label = names_of(self.case, self.subject)
        found = Verdict(FAILS, self.fault) if failed else self._verdict()
        if self._is_unexpected():
            found = Verdict(FAILS, "holds, but is expected to fail")
        record = {
            "test": _without(node.nodeid, self.name),
            "model": model,
            "label": label,
            "law": self.name,
            "outcome": found.outcome,
            "reason": found.reason,
            "laws": laws,
        }
        node.user_properties.append((PROPERTY, record))

    def conclude(self) -> None:
        """End the test: skip it, let it fail as expected, or refuse that it passes."""
        found = self._verdict()
        if found.outcome == NOT_APPLICABLE:
            pytest.skip(f"not applicable, {found.reason}")
        if found.outcome == EXPECTED:
            pytest.xfail(found.reason)
        if self._is_unexpected():
            model, _ = names_of(self.case, self.subject)
            pytest.fail(str(unexpected(self.name, model, self.expected[self.name])), pytrace=False)

    def _verdict(self) -> Verdict:
        return together(self.verdicts) if self.verdicts else Verdict(NOT_APPLICABLE, "no case")

    def _is_unexpected(self) -> bool:
        return self.name in self.expected and self._verdict().outcome == HOLDS


def _found(error: LawError) -> str:
    """Return what a law has found, without its meaning and the code."""
    lines = str(error).splitlines()
    return next((x.partition(": ")[2] for x in lines if x.startswith("  Found: ")), lines[0])


def _without(nodeid: str, law: str) -> str:
    """Return the id of a test without its law: `test_net[law]`, or `test_net[seed-law]`."""
    name, _, inside = nodeid.rpartition("[")
    rest = "-".join(part for part in inside.removesuffix("]").split("-") if part != law)
    return f"{name}[{rest}]" if rest else name
