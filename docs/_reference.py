"""Layers in the reference: `of` with its own arguments (an extension of mkdocstrings)."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Templates(griffe.Extension):
    """Layers are made by `of`, which takes what `initialize` takes after key and input."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Put `of` in the place of `initialize`."""
        made = cls.members.get("initialize")
        if isinstance(made, griffe.Function) and cls.name != "Layer":
            hidden = "initialize", "check"  # what they do, `of` says
            rest = {name: member for name, member in cls.members.items() if name not in hidden}
            cls.members = {"of": _of(cls, made), **rest}


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
    """Turn `in_spec`, which is not an argument of `of`, into a sentence."""
    text = re.sub(_ARGUMENT.format("init_key"), "", text, flags=re.MULTILINE)
    found = re.search(_ARGUMENT.format("in_spec"), text, flags=re.MULTILINE)
    if found is None:
        return text
    text = text.replace(found[0], "")
    text = re.sub(r"\nArgs:\s*(?=\n\S|\Z)", "\n", text)  # nothing is left there
    taken = " ".join(found[1].split()).rstrip(".")
    _, _, rest = text.partition("\n")
    return f"Configure the layer, whose input is {taken}.\n{rest}"
