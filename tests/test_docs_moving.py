"""Names and layers in the tables of the pages about moving from other libraries."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import equinox
import jax
import pytest
from test_docs import ROOT

import oryxstate as ox
from oryxstate import nn

PAGES = sorted((ROOT / "docs/how-to").glob("move-from-*.md"))
OURS = {"ox": ox, "nn": nn, "jax": jax}
# What the tables call the parts of an expression.
PARTS = dict.fromkeys(["a", "b", "layer", "template", "other"], nn.Dense.of(3)) | {
    "nn": nn,
    "cell": nn.GRUCell.of(3),
    "key": jax.random.key(0),
    "shape": (2, 3),
    "strides": (1, 1),
    "padding": "SAME",
}


def rows(page: Path) -> list[list[str]]:
    """The cells of all tables."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def cells(page: Path) -> list[str]:
    """All cells of tables, without the first column where it is about layers of Oryx's own `nn`."""
    return [cell for row in rows(page) for cell in row[page.stem.endswith("oryx") :]]


def assert_names_exist(page: Path, modules: dict[str, ModuleType], least: int) -> None:
    """Each dotted name of these modules in a table can be imported, and there are some."""
    first = "|".join(modules)
    name = re.compile(rf"(?<![\w.])((?:{first})(?:\.[A-Za-z_]\w*)+)")
    named = {found for cell in cells(page) for found in name.findall(cell)}
    assert len(named) > least
    for dotted in sorted(named):
        first, *rest = dotted.split(".")
        value = modules[first]
        for part in rest:
            value = getattr(value, part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_of_ours_in_a_table_exists(page):
    assert_names_exist(page, OURS, 25)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_layer_of_ours_in_a_table_takes_its_arguments(page):
    found = re.findall(r"`(nn\.[\w.]+\([^`]*|\w+ >> \w+)`", "\n".join(cells(page)))
    assert len(found) > 5
    for code in found:
        assert isinstance(eval(code, dict(PARTS)), nn.Template | ox.Module), code


def test_every_name_of_equinox_in_a_table_exists():
    page = ROOT / "docs/how-to/move-from-equinox.md"
    assert_names_exist(page, {"eqx": equinox}, 30)


def test_every_page_has_a_table_of_names_and_one_of_silent_differences():
    assert [page.stem for page in PAGES] == [
        f"move-from-{n}" for n in ("equinox", "flax", "haiku", "oryx")
    ]
    for page in PAGES:
        text = page.read_text()
        parts = ["Names", "Differences without an error", "One model, side by side"]
        assert [p for p in re.findall(r"^## (.*)$", text, re.MULTILINE) if p in parts] == parts
