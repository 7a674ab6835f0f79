"""The site: a complete reference, measured numbers on the home page, links from names."""

import importlib.util
import inspect
import json
import re

import broken
import broken_more
from mutations import MUTATIONS
from test_docs import ROOT

import oryxstate
from oryxstate.testing import LAWS


def load(name):
    """A file of `docs` that is not a module of a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links = load("_links")


def test_the_reference_holds_every_public_name_once():
    pages = (ROOT / "docs/reference").rglob("*.md")
    listed = [name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    named = [getattr(oryxstate, name) for name in oryxstate.__all__]
    modules = {m.__name__: m for m in (*named, oryxstate.testing) if inspect.ismodule(m)}
    public = {f"oryxstate.{name}" for name in oryxstate.__all__} - set(modules)
    public |= {
        f"{name}.{member}"
        for name, module in modules.items()
        for member in module.__all__
        if getattr(oryxstate, member, None) is not getattr(module, member)  # else listed there
    }
    assert sorted(listed) == sorted(public)


def words(page):
    """The text of a page in one line."""
    return " ".join((ROOT / page).read_text().replace("**", "").split())


def test_the_numbers_of_the_home_page_are_measured():
    """Those of the table of transformations, of the planted faults, and of the laws."""
    home, readme = words("docs/index.md"), words("README.md")
    table = (ROOT / "docs/explanation/transformations.md").read_text().split("<!-- table -->")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    names = [name for name in rows[0] if name]
    for i, name in enumerate(names, 1):
        cells = [row[i] for row in rows[2:]]
        counts = f"{cells.count('right')} | {sum('wrong' in cell for cell in cells)} |"
        label = "Flax Linen, Haiku" if name in ("Flax Linen", "Haiku") else name
        assert f"| {label} | {counts}" in home
    programs = [row[1] for row in rows[2:]]
    assert names[0] == "oryxstate" and programs.count("refused") == 1
    for page in (home, readme):
        of = re.findall(r"(?:(\d+) of )?(\d+) programs", page)
        assert of and {int(count) for _, count in of} == {len(programs)}
        assert {int(n) for n, _ in of if n} == {programs.count("right")}
        assert set(re.findall(r"(\d+) laws", page)) == {str(len(LAWS))}
    faults = len(broken.BROKEN | broken_more.BROKEN)
    assert f"| {faults} modules" in home
    assert f"| {len(MUTATIONS)} places of this library" in home


def test_the_times_of_the_home_page_are_those_of_the_page_on_speed():
    results = json.loads((ROOT / "benchmarks/results.json").read_text())["results"]
    tables = {table["title"]: table["rows"] for table in results}
    trace = tables["trace: 50 blocks, forward + gradient + update"]
    call = tables["jit call: 100 modules of two arrays in and out"]
    ratio = {name: f"{row['ratio']:.2f}" for name, row in call.items()}
    ours, theirs = (f"{trace[name]['ratio']:.2f}" for name in ("oryxstate", "equinox"))
    home = words("docs/index.md")
    assert f"| trace a training step of 50 blocks | {ours} | {theirs} |" in home
    assert f"traces a training step in {ours} of its time" in home
    assert f"traced in {ours} of its time" in words("README.md")
    assert (
        f"| jitted call, 100 modules in and out | {ratio['oryxstate']} | "
        f"{ratio['equinox']}, `filter_jit` {ratio['equinox, filter_jit']} |"
    ) in home


def test_names_in_backticks_become_links():
    text = "`ox.grad`, `nn.Dense.of(3)`, [`nn.RNN` here](x.md), `ox.none`\n\n# `ox.grad`\n"
    block = "```python\n`ox.grad`\n```\n"
    expected = "[`ox.grad`][oryxstate.grad], [`nn.Dense.of(3)`][oryxstate.nn.Dense], "
    assert links.link_names("`oryxstate.nn`") == "`oryxstate.nn`"  # a module has no page of its own
    assert links.link_names(text + block) == expected + (text + block).split(", ", 2)[2]
