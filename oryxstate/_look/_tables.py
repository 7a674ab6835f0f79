"""Tables of rows as text and as HTML."""

from __future__ import annotations

import html as escaping
import io
from collections.abc import Sequence
from typing import Any

from oryxstate._extras import require

HEAD = "path", "class", "output", "params", "state", "bytes", "FLOPs"
NUMBERS = HEAD[3:]


def _cells(row: Any) -> tuple[str, ...]:
    out = "" if row.out is None else repr(row.out)
    flops = "" if row.flops is None else f"{row.flops:,}"
    counts = (f"{n:,}" for n in (row.params, row.state, row.bytes))
    return row.path or "(model)", row.kind, out, *counts, flops


def rich_table(rows: Sequence[Any]) -> Any:
    """Return a table of rich.

    Raises:
        ImportError: if rich is not installed.
    """
    box = require("rich.box", "train").SIMPLE_HEAD
    table = require("rich.table", "train").Table(box=box, pad_edge=False, show_edge=False)
    text = require("rich.text", "train").Text
    for name in HEAD:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(text, _cells(row)))
    return table


def text(rows: Sequence[Any]) -> str:
    """Return the table as plain text, as wide as it has to be.

    Raises:
        ImportError: if rich is not installed.
    """
    console = require("rich.console", "train").Console(
        file=io.StringIO(), width=100_000, color_system=None, force_terminal=False
    )
    console.print(rich_table(rows))
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def html(rows: Sequence[Any]) -> str:
    """Return the table as HTML, which needs no package."""
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    body = "".join(f"<tr>{''.join(_html_cells(row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cells(row: Any) -> list[str]:
    cells = []
    for name, cell in zip(HEAD, _cells(row), strict=True):
        style = ' style="text-align: right"' if name in NUMBERS else ' style="text-align: left"'
        if name == "path":
            style = f' style="text-align: left; padding-left: {1 + row.depth}em"'
        cells.append(f"<td{style}>{escaping.escape(cell)}</td>")
    return cells
