"""The numbered statements of docs/explanation/semantics.md, and the tests that cite them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "explanation" / "semantics.md"
NUMBERS = range(1, 19)
HEADING = re.compile(r"^### S(\d+)\. .+$", re.MULTILINE)


def sections() -> dict[int, str]:
    """The text below each numbered heading."""
    _, *parts = HEADING.split(PAGE.read_text())
    return {int(n): text for n, text in zip(parts[::2], parts[1::2], strict=True)}


def cited() -> dict[int, set[str]]:
    """The numbers that test files cite, each with these files."""
    found: dict[int, set[str]] = {}
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__):
            for number in re.findall(r"\bS([1-9]\d?)\b", path.read_text()):
                found.setdefault(int(number), set()).add(path.name)
    return found


def test_every_number_has_one_heading_in_order():
    assert list(map(int, HEADING.findall(PAGE.read_text()))) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_statement_is_cited_by_a_test_or_marked_as_missing(number):
    missing = re.search(r"not there\s+yet", sections()[number], re.IGNORECASE)
    assert number in cited() or missing, f"no test file cites S{number}"


def test_tests_cite_no_other_number():
    assert set(cited()) <= set(NUMBERS)
