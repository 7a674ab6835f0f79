"""The page for those who move from Oryx: the blocks with Oryx itself (`nox -s oryx`)."""

from __future__ import annotations

import importlib.metadata
import types

from oryx.core import state
from oryx.experimental import nn
from test_docs import ROOT, check

PAGE = ROOT / "docs/how-to/move-from-oryx.md"


def test_the_blocks_with_oryx_print_what_the_page_shows():
    check(PAGE, vars(types.ModuleType("page")), frozenset({"py"}))


def test_the_page_says_which_releases_it_was_run_with():
    for name in ("oryx", "jax"):
        assert importlib.metadata.version(name) in PAGE.read_text()


def test_every_name_of_oryx_is_on_the_page():
    public = [name for name in vars(state) if name[0] != "_" and callable(getattr(state, name))]
    layers = [name for name in vars(nn) if isinstance(getattr(nn, name), type)]
    text = PAGE.read_text()
    named = [f"state.{name}" for name in public] + [f"nn.{name}" for name in layers]
    # Base classes, primitives' rules and constants have no counterpart that a user would write.
    missing = [name for name in named if name not in text]
    assert set(missing) <= {"state.Module", "state.kwargs_rules"}, missing
