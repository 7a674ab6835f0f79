"""The documentation: every Python block of a page runs, one after the other.

What a block prints stands below it in a `text` block, and is compared. A `py` block needs another
library; `peers_pages.py` runs it.
"""

import contextlib
import io
import itertools
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

ROOT = Path(__file__).parents[1]
LANGUAGES = {"python", "py", "text", "sh", "yaml"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of the page, its first


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start(2)))
        for found in FENCE.finditer(text)
    ]


def check(page: Path, namespace: dict, languages: frozenset[str] = frozenset({"python"})) -> None:
    """Run the blocks of a page, and compare what they print."""
    listed = blocks(page)
    # As a reader has it: without the strictness of the other tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block, following in itertools.zip_longest(listed, listed[1:]):
            if block.language in languages:
                shown = following.text if following and following.language == "text" else ""
                assert run(block, page, namespace) == shown, f"{page.name}, line {block.line}"


def run(block: Block, page: Path, namespace: dict) -> str:
    """What the block prints. Its lines keep their numbers: a traceback points at the page."""
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for pages that write files
    module = types.ModuleType("page_of_the_documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where pickle finds its classes
    check(page, vars(module))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_has_a_language_that_is_known(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_the_navigation_holds_every_page():
    navigation = (ROOT / ".mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0]
    pages = [ROOT / "docs" / path for path in re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)]
    assert sorted(pages) == PAGES[1:]


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_the_readme_gives_the_two_commands(session):
    commands = "".join(b.text for b in blocks(ROOT / "README.md") if b.language == "sh")
    assert f"python -m pip install nox && nox -s {session}\n" in commands
