"""The page on speed: tables made from the committed results, and counts that the guard knows."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from test_counts import COUNTS

CHECKOUT = Path(__file__).parents[1]


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_results():
    page = loaded("page")
    text = page.PAGE.read_text()
    assert page.page(text, json.loads(page.RESULTS.read_text())) == text


SHOWN = {
    "attributes": "attributes of a module",
    "call of a jitted function": "call of a jitted function, in and out",
    "call of a step": "call of an `ox.step`",
    "construction": "construction, with state, params and static",
    "root call, eager": "root call, operation by operation",
}


@pytest.mark.parametrize("name", SHOWN)
def test_its_counts_are_those_of_the_guard(name):
    text = (CHECKOUT / "docs/explanation/speed.md").read_text()
    row = re.search(rf"^\| {re.escape(SHOWN[name])} \| (\d+) \| (\d+) \|$", text, re.M)
    assert row is not None and (int(row[1]), int(row[2])) == COUNTS[name][1:]
