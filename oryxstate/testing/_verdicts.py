"""Verdicts of laws on a model, and the report that collects them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from oryxstate.testing._laws import Case, Law, LawError, NotApplicable

HOLDS, FAILS = "holds", "fails"
EXPECTED, NOT_APPLICABLE = "fails as expected", "not applicable"
_RANK = (NOT_APPLICABLE, HOLDS, EXPECTED, FAILS)  # of several cases, the last one counts


class Verdict(NamedTuple):
    """What was found of one law.

    Attributes:
        outcome: one of `HOLDS`, `FAILS`, `EXPECTED`, `NOT_APPLICABLE`.
        reason: why it does not apply, why it is expected to fail, or how it fails.
    """

    outcome: str
    reason: str = ""


def verdict(name: str, law: Law, case: Case, expected: Mapping[str, str]) -> Verdict:
    """Check a law on a case.

    Args:
        name: of the law.
        law: the law itself.
        case: the case.
        expected: the laws that are expected to fail, with the reasons.

    Raises:
        LawError: if a law does not hold that is not expected to fail.
    """
    try:
        law(case)
    except NotApplicable as reason:
        return Verdict(NOT_APPLICABLE, str(reason))
    except LawError as error:
        if not error.laws or set(error.laws) - expected.keys():
            raise
        if name in expected:
            return Verdict(EXPECTED, expected[name])
        return Verdict(NOT_APPLICABLE, f"it rests on `{error.laws[0]}`, which is expected to fail")
    return Verdict(HOLDS)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on several cases: a law applies if it does to one of them."""
    return max(verdicts, key=lambda found: _RANK.index(found.outcome))


def unexpected(name: str, model: str, reason: str) -> LawError:
    """Make the error for a law that holds although it is expected to fail."""
    return LawError(
        f"`{name}` holds for {model}, but `expected_failures` says that it does not: {reason!r}. "
        "Remove it there.",
        (name,),
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found of the laws on one model.

    Attributes:
        checked: the names of the laws that hold.
        not_applicable: the laws that do not apply to the model, with the reason.
        expected_failures: the laws that fail as expected, with the reason that was given.
        failed: the laws that do not hold, with what was found; for these `check_module` raises.
        model: the name of the model.
        label: the kind of model, such as "Equinox module".
    """

    checked: tuple[str, ...]
    not_applicable: dict[str, str]
    expected_failures: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    model: str = ""
    label: str = ""

    @property
    def ran(self) -> int:
        """How many laws said anything about the model."""
        return len(self.checked) + len(self.expected_failures) + len(self.failed)

    def __str__(self) -> str:
        listed = f": {', '.join(self.checked)}" if self.checked else ""
        count = len(self.checked)
        lines = [f"{count} {'law holds' if count == 1 else 'laws hold'}{listed}."]
        lines += [f"{name}: {found}" for name, found in self.failed.items()]
        lines += [f"{n}: fails as expected, {why}." for n, why in self.expected_failures.items()]
        lines += [f"{name}: not applicable, {why}." for name, why in self.not_applicable.items()]
        return "\n".join(lines)


def report(verdicts: Mapping[str, Verdict], model: str, label: str) -> Report:
    """Collect verdicts by the name of the law."""

    def those(outcome: str) -> dict[str, str]:
        return {name: v.reason for name, v in verdicts.items() if v.outcome == outcome}

    return Report(
        tuple(those(HOLDS)),
        those(NOT_APPLICABLE),
        those(EXPECTED),
        those(FAILS),
        model,
        label,
    )


def names_of(case: Case | None, subject: Any) -> tuple[str, str]:
    """Return the name of a model and its kind, for reports."""
    adapted = None if case is None else case.of_laws.adapted
    if adapted is None:
        return getattr(subject, "__name__", type(subject).__name__), ""
    return adapted.name, adapted.label
