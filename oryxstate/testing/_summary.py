"""The summary of the laws that a run of pytest checked, as text, JSON and Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from oryxstate._version import __version__
from oryxstate.testing._laws import SETS
from oryxstate.testing._verdicts import Report, Verdict, report

_VERSION = list(SETS)[-1]


@dataclasses.dataclass(frozen=True)
class Checked:
    """One model that was checked in a run, by the tests of one `@laws(...)`.

    Attributes:
        test: the test, without the name of a law.
        report: what was found.
        laws: how many laws are checked on it; a run may have left some out, as with `-k`.
    """

    test: str
    report: Report
    laws: int

    @property
    def seen(self) -> int:
        """How many of its laws were in the run."""
        return self.report.ran + len(self.report.not_applicable)

    def fault(self, least: int) -> str:
        """Say why too few laws ran; empty if enough did, or if the run left some of them out."""
        if self.seen < self.laws or self.report.ran >= max(1, least):
            return ""
        ran = f"only {_several(self.report.ran, 'law')} ran" if self.report.ran else "no law ran"
        wanted = f", and --ox-min-laws wants {least}" if least else ""
        return f"{self.test}: {ran} on {self.report.model}{wanted}."


def collected(records: Iterable[Mapping[str, Any]]) -> list[Checked]:
    """Collect the records of tests, by model."""
    by_test: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_test.setdefault(record["test"], {})[record["law"]] = record
    return [_checked(test, list(by_law.values())) for test, by_law in sorted(by_test.items())]


def _checked(test: str, records: list[Mapping[str, Any]]) -> Checked:
    verdicts = {r["law"]: Verdict(r["outcome"], r["reason"]) for r in records}
    named = next((r for r in records if r["label"]), records[0])  # one that drew a model
    found = report(verdicts, named["model"], named["label"])
    return Checked(test, found, max(r["laws"] for r in records))


def as_text(models: Sequence[Checked]) -> list[str]:
    """Return the lines to print at the end of a run."""
    lines = []
    for each in models:
        found = each.report
        lines.append(f"{each.test}: {found.model}{_of_kind(found)}")
        lines.append(f"  {_counts(found)}{_left_out(each)}")
        lines += [f"  {name}: {words}{why}" for name, words, why in _reasons(found)]
    total = sum(each.report.ran for each in models)
    lines.append(f"{_several(len(models), 'model')}, {_several(total, 'law')} run on them.")
    return lines


def _counts(found: Report) -> str:
    counts = {
        "hold": len(found.checked),
        "fail": len(found.failed),
        "fail as expected": len(found.expected_failures),
        "not applicable": len(found.not_applicable),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "hold")


def _left_out(each: Checked) -> str:
    return "" if each.seen >= each.laws else f", {each.laws - each.seen} left out of this run"


def _of_kind(found: Report) -> str:
    return f", {found.label}" if found.label else ""


def _reasons(found: Report) -> Iterable[tuple[str, str, str]]:
    """Yield each law that does not simply hold, with the reason."""
    yield from ((name, "", why) for name, why in found.failed.items())
    yield from ((n, "fails as expected, ", why) for n, why in found.expected_failures.items())
    yield from ((n, "not applicable, ", why) for n, why in found.not_applicable.items())


def _several(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def as_json(models: Sequence[Checked]) -> str:
    """Return the summary for programs: versions, and the verdict of each law on each model."""
    data = {"laws": _VERSION, **_versions(), "models": list(map(_as_data, models))}
    return json.dumps(data, indent=2) + "\n"


def _as_data(each: Checked) -> dict[str, Any]:
    found = each.report
    return {
        "test": each.test,
        "model": found.model,
        "kind": found.label,
        "laws": each.laws,
        "hold": list(found.checked),
        "fail": found.failed,
        "fail_as_expected": found.expected_failures,
        "not_applicable": found.not_applicable,
    }


def as_markdown(models: Sequence[Checked]) -> str:
    """Return the summary as a table, with the reasons below."""
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    rows = [
        "| test | model | kind | laws that hold | fail | fail as expected | not applicable |",
        "| --- | --- | --- | ---: | --- | --- | --- |",
    ]
    for each in models:
        found = each.report
        named = (found.failed, found.expected_failures, found.not_applicable)
        cells = [
            f"`{each.test}`",
            found.model,
            found.label,
            f"{len(found.checked)} of {each.laws}",
            *(", ".join(f"`{name}`" for name in names) for names in named),
        ]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    reasons = [
        f"- `{each.test}`, `{name}`: {words}{why}"
        for each in models
        for name, words, why in _reasons(each.report)
    ]
    return "\n".join([f"Laws of {_VERSION}, {versions}.", "", *rows, "", *reasons]).strip() + "\n"


def _versions() -> dict[str, str]:
    return {"oryxstate": __version__, "jax": jax.__version__}
