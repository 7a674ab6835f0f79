"""Links from names in backticks to the reference (a hook of mkdocs)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[1] / "oryxstate"


def _names(module: str) -> list[str]:
    """Return `__all__` of a public module, read without an import; nothing if it is not one."""
    path = SOURCES.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text() if path.exists() else ""
    found = re.search(r"^__all__ = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    return re.findall(r'"(\w+)"', found[1]) if found else []


MODULES = {name: f"oryxstate.{name}" for name in [*_names("oryxstate"), "testing"]}
PREFIXES = {"ox": "oryxstate", "oryxstate": "oryxstate", **MODULES}
PUBLIC = {f"{module}.{name}" for module in PREFIXES.values() for name in _names(module)}
# What is left alone (a code block, a heading, a link), or the name of something in backticks.
_TOKEN = re.compile(
    r"^```.*?^```$|^#.*?$|\[[^\]\n]*(?:\n[^\]\n]+)?\]\([^)]*\)|`(\w+)\.(\w+)(?:\.of)?(?:\([^`\n]*\))?`",
    re.DOTALL | re.MULTILINE,
)


def link_names(markdown: str) -> str:
    """Link names such as `ox.grad` and `nn.Dense.of(3)` to the reference."""

    def link(found: re.Match[str]) -> str:
        name = f"{PREFIXES.get(found[1] or '', '')}.{found[2]}"
        return f"[{found[0]}][{name}]" if name in PUBLIC else found[0]

    return _TOKEN.sub(link, markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link names on a page, as mkdocs asks."""
    return link_names(markdown)
