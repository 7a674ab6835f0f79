"""The reference as users meet it: `of` of each layer with its own arguments, and links to names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

SOURCES = Path(__file__).parents[1] / "oryxstate"
PREFIXES = {"ox": "oryxstate", "oryxstate": "oryxstate"} | {
    name: f"oryxstate.{name}"
    for name in ("nn", "select", "checkpoint", "mapping", "weights", "testing")
}


class Templates(griffe.Extension):
    """Layers are made by `of`, which takes what `initialize` takes after key and input."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Put `of` in the place of `initialize`."""
        made = cls.members.get("initialize")
        if isinstance(made, griffe.Function) and cls.name != "Layer":
            cls.members = {"of": _of(cls, made), **cls.members}
            del cls.members["initialize"]


def _of(cls: griffe.Class, made: griffe.Function) -> griffe.Function:
    hidden = {"cls", "init_key", "in_spec"}
    function = griffe.Function(
        "of",
        parameters=griffe.Parameters(*(p for p in made.parameters if p.name not in hidden)),
        returns=f"Template[{cls.name}]",
        lineno=made.lineno,
        endlineno=made.endlineno,
        parent=cls,
    )
    function.labels.add("classmethod")
    if made.docstring:
        text = _without_input(made.docstring.value)
        function.docstring = griffe.Docstring(text, parent=function, parser="google")
    return function


_ARGUMENT = r"^    {}:((?:.*)(?:\n     +.*)*)\n?"


def _without_input(text: str) -> str:
    """Say what the layer takes in a sentence: it is no argument of `of`."""
    text = re.sub(_ARGUMENT.format("init_key"), "", text, flags=re.MULTILINE)
    found = re.search(_ARGUMENT.format("in_spec"), text, flags=re.MULTILINE)
    if found is None:
        return text
    text = text.replace(found[0], "")
    text = re.sub(r"\nArgs:\s*(?=\n\S|\Z)", "\n", text)  # nothing is left there
    taken = " ".join(found[1].split()).rstrip(".")
    first, _, rest = text.partition("\n")
    return f"{first}\n\nInput: {taken}.\n{rest}"


# Links --------------------------------------------------------------------------------------------


def _public() -> set[str]:
    """Full names of everything public, read from `__all__` without an import."""
    found = set()
    for prefix in sorted(set(PREFIXES.values())):
        path = SOURCES.joinpath(*prefix.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        names = re.search(r"^__all__ = \[(.*?)\]", path.read_text(), re.DOTALL | re.MULTILINE)
        found |= {f"{prefix}.{name}" for name in re.findall(r'"(\w+)"', names[1] if names else "")}
    return found - set(PREFIXES.values())


PUBLIC = _public()
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
    """Link names on a page (a hook of mkdocs)."""
    return link_names(markdown)
