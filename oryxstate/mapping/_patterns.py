"""Patterns of paths, whose wildcards are carried from an old path to a new one."""

from __future__ import annotations

import functools
import re

_WILDCARD = re.compile(r"\*\*|\*|#")
_MEANING = {"**": "(.*)", "*": r"([^.]+?)", "#": r"(\d+)"}


@functools.cache
def _regex(pattern: str) -> re.Pattern:
    fixed = [re.escape(text) for text in _WILDCARD.split(pattern)]
    wild = [_MEANING[found] for found in _WILDCARD.findall(pattern)] + [""]
    return re.compile("".join(a + b for a, b in zip(fixed, wild, strict=True)), re.DOTALL)


def wildcards(pattern: str) -> list[str]:
    """Return the wildcards of a pattern, from left to right."""
    return _WILDCARD.findall(pattern)


def match(pattern: str, path: str) -> tuple[str, ...] | None:
    """Match a whole path.

    Args:
        pattern: a path in which `*` stands for a part without dots, `**` for any text, and `#` for
            a number.
        path: a path.

    Returns:
        What the wildcards stand for, or None if the path does not match.

    Examples:
        >>> from oryxstate.mapping._patterns import match
        >>> match("layers[#].**", "layers[3].norm.scale")
        ('3', 'norm.scale')
        >>> match("layers[#].*", "layers[3].norm.scale") is None
        True
    """
    found = _regex(pattern).fullmatch(path)
    return None if found is None else found.groups()


def fill(pattern: str, values: tuple[str, ...]) -> str:
    """Put values in the place of the wildcards of a pattern, from left to right."""
    left = iter(values)
    return _WILDCARD.sub(lambda _: next(left), pattern)


def check_same_wildcards(rule: str, old: str, new: str) -> None:
    """Raise unless two patterns have the same wildcards in the same order.

    Raises:
        ValueError: naming the rule and both patterns.
    """
    if wildcards(old) != wildcards(new):
        raise ValueError(
            f"{rule}: {old!r} and {new!r} must have the same wildcards in the same order, such as "
            "'encoder.**' and 'backbone.**'; each carries its text from one path to the other."
        )
