"""Pages on moving from other libraries, with the blocks that need these (`nox -s peers`)."""

from __future__ import annotations

import sys
import types

import equinox
import flax
import haiku
import jax
import pytest
from flax import linen, nnx
from test_docs import ROOT, check
from test_docs_moving import assert_names_exist

import oryxstate as ox

PAGES = {name: ROOT / f"docs/how-to/move-from-{name}.md" for name in ("equinox", "flax", "haiku")}
MODULES = {"eqx": equinox, "hk": haiku, "nnx": nnx, "linen": linen, "jax": jax}
MODULES |= {"ox": ox, "nn": ox.nn}


ALSO = PAGES | {"any": ROOT / "docs/how-to/test-any-model.md"}


@pytest.mark.parametrize("name", ["flax", "haiku", "any"])
def test_both_sides_of_a_page_run_and_agree(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page_about_moving")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    check(ALSO[name], vars(module), frozenset({"python", "py"}))


@pytest.mark.parametrize("name", PAGES)
def test_every_name_in_a_table_exists(name):
    assert_names_exist(PAGES[name], MODULES, 60)


@pytest.mark.parametrize(("name", "library"), [("flax", flax), ("haiku", haiku)])
def test_a_page_says_which_release_it_was_run_with(name, library):
    assert library.__version__ in PAGES[name].read_text()
