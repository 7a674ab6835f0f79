"""The files around the package: versions that agree, workflows, and what CONTRIBUTING names."""

import builtins
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import test_architecture

import oryxstate as ox

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOXFILE = (ROOT / "noxfile.py").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def text(path: str) -> str:
    return (ROOT / path).read_text()


def test_one_version():
    """Of the package, the newest in the changelog, and the one to be cited."""
    newest = re.findall(r"^## (\d+\.\d+\.\d+)", text("CHANGELOG.md"), re.MULTILINE)[0]
    (cited,) = re.findall(r"^version: (.*)$", text("CITATION.cff"), re.MULTILINE)
    assert ox.__version__ == newest == cited
    assert PROJECT["project"]["dynamic"] == ["version"]


def test_the_hook_runs_the_ruff_of_lint():
    (revision,) = re.findall(r"rev: v(.*)", text(".pre-commit-config.yaml"))
    assert PROJECT["dependency-groups"]["lint"] == [f"ruff=={revision}"]


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_sessions_that_are_run_exist(path):
    sessions = set(re.findall(r"^@nox\.session.*?^def (\w+)", NOXFILE, re.MULTILINE | re.DOTALL))
    found = re.findall(r"nox -s ([a-z ]+?)(?: --|$)", path.read_text(), re.MULTILINE)
    assert found and {name for line in found for name in line.split()} <= sessions


def test_contributing_names_files_that_exist():
    """Paths in backticks; those of the package may be without its name, tests without a folder."""
    page = text("CONTRIBUTING.md")
    named = set(re.findall(r"`([\w./]+\.(?:py|md|yml|toml|cff))`", page)) - {"NAME.py"}
    made_up = {name for name in named if "NAME" in name or "_topic" in name}
    names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.*") if is_ours(path)]
    missing = [
        n for n in named - made_up if not any(f"/{path}".endswith(f"/{n}") for path in names)
    ]
    assert len(named) > 50 and missing == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_names_of_the_code_on_pages_for_contributors_exist(page):
    named = {name.split(".")[-1] for name in re.findall(r"`([A-Za-z_][\w.]*\w)`", text(page))}
    files = [path for folder in ("oryxstate", "tests") for path in (ROOT / folder).rglob("*.py")]
    sources = [path.read_text() for path in files if path != Path(__file__)]
    words = {word for source in [*sources, NOXFILE] for word in re.findall(r"\w+", source)}
    elsewhere = {"pypi", "md", "yml", "cff", *dir(builtins)}  # the index, files, Python
    assert len(named) > 20 and named - words - elsewhere == set()


def is_ours(path: Path) -> bool:
    return not {".nox", ".venv", ".site", "dist"}.intersection(path.relative_to(ROOT).parts)


def test_contributing_has_ten_recipes():
    assert re.findall(r"^### (\d+)\. ", text("CONTRIBUTING.md"), re.MULTILINE) == [
        str(i) for i in range(1, 11)
    ]


def test_the_page_on_architecture_shows_the_layers():
    page = text("docs/explanation/architecture.md")
    drawn = page.split("```text\n")[1].split("```")[0]
    layers = [set(names) for names in reversed(test_architecture.LAYERS)]
    lines = [set(line.split()) for line in drawn.splitlines()]
    assert len(lines) == len(layers)
    for line, layer in zip(lines, layers, strict=True):
        missing = {name for name in layer - line if not name.startswith("_")}
        assert line <= layer and not missing, missing | (line - layer)


# Prose --------------------------------------------------------------------------------------------


def prose():
    spec = importlib.util.spec_from_file_location("prose", ROOT / ".ci/prose.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("subject", "wrong"),
    [
        ("Thread state through linear calls", ""),
        ("Thread state through linear calls\n\nSince they hold it.\n", ""),
        ("x" * 73, "the subject has 73 characters"),
        ("Fixes the scan", "begins with 'Fixes'"),
        ("Adding a layer", "begins with 'Adding'"),
        ("add a layer", "does not begin with a capital"),
        ("Embed tokens", ""),
        ("Bring back the scan", ""),
        ("Add a layer\n# Please enter the commit message\n#\n", ""),
        ("Add a layer\n# ------------------------ >8 ------------------------\n+a = 1\n", ""),
        ("Add a layer\n# A comment\nand a law", "line below the subject"),
        ("Add a layer.", "ends with a full stop"),
        ("Add a layer\nand a law", "line below the subject"),
        ("", "does not begin with a capital"),
    ],
)
def test_the_hook_for_subjects_of_commits(subject, wrong, tmp_path, capsys):
    (tmp_path / "message").write_text(subject)
    assert prose().main(["--message", str(tmp_path / "message")]) == bool(wrong)
    assert (wrong or "nothing to mend") in capsys.readouterr().out


def test_phrases_are_found_with_their_place(tmp_path, monkeypatch, capsys):
    check = prose()
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("A fine line.\nWhat " + "is " + "no array is refused.\n")
    assert check.main([]) == 1
    assert capsys.readouterr().out == "page.md:2: 'is no': write 'is not a ...'\n"
    (tmp_path / "page.md").write_text("There is no array here.\n")
    assert check.main([]) == 0
