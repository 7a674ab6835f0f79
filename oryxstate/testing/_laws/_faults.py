"""The exceptions of laws, and their texts."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import equinox as eqx
import jax

from oryxstate import _tree

_LIBRARIES = (
    *(str(Path(str(module.__file__)).parent) for module in (jax, eqx, _tree)),
    *(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib")),
    "<",  # code that is in no file
)


class NotApplicable(Exception):
    """Raised by a law that does not apply to a case, with the reason as its text."""


class LawError(AssertionError):
    """A law does not hold.

    Attributes:
        laws: the names of the laws that do not hold.
    """

    def __init__(self, text: str, laws: tuple[str, ...] = ()):
        self.laws = laws
        super().__init__(text)


class Fault(Exception):
    """A fault in words, which `law` turns into a `LawError`."""


def gist(error: BaseException) -> str:
    """Summarize an exception in one line: its type, the start of its text, where it was raised."""
    text = " ".join(str(error).split("\n\n")[0].split())
    text = text if len(text) < 300 else f"{text[:300]} ..."
    return f"{type(error).__name__}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return the innermost line of a traceback that is in the author's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_LIBRARIES)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
