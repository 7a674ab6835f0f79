"""What each library does with state under each transformation, as a table: `nox -s peers`."""

from __future__ import annotations

import argparse
import difflib
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)  # before anything asks for a device

import equinox_state  # noqa: E402
import haiku_lifted  # noqa: E402
import linen  # noqa: E402
import nnx  # noqa: E402
import ours  # noqa: E402
import refs  # noqa: E402
from judge import Cell, judged  # noqa: E402
from rows import ROWS  # noqa: E402

LIBRARIES = ours, equinox_state, nnx, linen, haiku_lifted, refs
COLUMNS = {title: column for library in LIBRARIES for title, column in library.COLUMNS.items()}
PAGE = Path(__file__).parents[2] / "docs/explanation/transformations.md"
BETWEEN = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
QUOTES = re.compile(r"^> `+ ?(.*?) ?`+$", re.MULTILINE)
Cells = dict[str, dict[str, Cell]]


def judge_all() -> Cells:
    """The cells of every row, one for each library."""
    return {
        name: {title: judged(column, name) for title, column in COLUMNS.items()} for name in ROWS
    }


def line(*entries: str) -> str:
    return f"| {' | '.join(entries)} |"


def table(cells: Cells) -> str:
    """In Markdown, under the versions."""
    packages = ["jax", *dict.fromkeys(p for c in COLUMNS.values() for p in c.packages)]
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    python = ".".join(platform.python_version_tuple()[:2])
    lines = [
        f"Python {python}, {versions}, on the CPU:",
        "",
        line("", *COLUMNS),
        line(*["---"] * (1 + len(COLUMNS))),
        *(line(name, *(cell.text for cell in row.values())) for name, row in cells.items()),
    ]
    return "\n".join(lines) + "\n"


def reasons(cells: Cells) -> list[str]:
    """The error or the numbers of every program."""
    return [
        f"{name} | {title} | {way} | {when}: {outcome.word} {outcome.why}"
        for name, row in cells.items()
        for title, cell in row.items()
        for way, outcomes in cell.outcomes.items()
        for when, outcome in zip(("eager", "jit"), outcomes, strict=True)
    ]


def stale(cells: Cells, page: str) -> list[str]:
    """The errors that the page quotes and no program raised."""
    seen = "\n".join(reasons(cells))
    return [f"no longer raised: {quote}" for quote in QUOTES.findall(page) if quote not in seen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--why", action="store_true", help="print each error and wrong number too")
    parser.add_argument("--check", action="store_true", help="fail if the page says otherwise")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    args = parser.parse_args()
    found = judge_all()
    if args.why:
        print(*reasons(found), sep="\n")
    print(table(found), end="")
    page = PAGE.read_text()
    renewed = BETWEEN.sub(lambda _: f"\n{table(found)}\n", page)
    if args.write:
        PAGE.write_text(renewed)
    if args.check:
        differences = difflib.unified_diff(page.splitlines(), renewed.splitlines(), lineterm="")
        sys.exit("\n".join([*differences, *stale(found, page)]) or None)


if __name__ == "__main__":
    main()
