"""Patterns of paths, such as `encoder.**.kernel`.

Both a path and a pattern are read as a sequence of segments: the keys that one writes in front of
each dot, or in brackets. Quotes around a key are optional in a pattern.
"""

from __future__ import annotations

import ast
import difflib
import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ANY_DEPTH = "**"


class Segment(NamedTuple):
    """One key of a path, or what a pattern says about one.

    Attributes:
        key: the name, index or key, as text without quotes.
        form: "name" after a dot, "index" or "key" in brackets.
    """

    key: str
    form: str


@functools.lru_cache(4096)
def segments(path: str) -> tuple[Segment, ...]:
    """Split a path or a pattern at its dots and brackets.

    Raises:
        ValueError: if a bracket or a quote is not closed, or a key is empty.
    """
    found, i = [], 0
    while i < len(path):
        if path[i] == "[":
            end = _closing(path, i)
            found.append(_in_brackets(path[i + 1 : end]))
            i = end + 1
        else:
            i += path[i] == "." and i > 0
            end = min((path.find(c, i) for c in ".[" if path.find(c, i) >= 0), default=len(path))
            if end == i:
                raise ValueError(f"the path {path!r} has an empty key at position {i}.")
            found.append(Segment(path[i:end], "name"))
            i = end
    if path.endswith("."):
        raise ValueError(f"the path {path!r} has an empty key at position {len(path)}.")
    return tuple(found)


def keys_of(path: str) -> tuple[Segment, ...]:
    """Return the segments of a path in a tree, in which a key may be anything."""
    try:
        return segments(path)
    except ValueError:
        return (Segment(path, "name"),)


def _closing(path: str, start: int) -> int:
    """Return the position of the bracket that closes the one at `start`."""
    depth, quote, i = 0, "", start
    while i < len(path):
        c = path[i]
        if quote:
            i += c == "\\"
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        else:
            depth += (c == "[") - (c == "]")
            if depth == 0:
                return i
        i += 1
    raise ValueError(f"the path {path!r} has a bracket at position {start} that is not closed.")


def _in_brackets(text: str) -> Segment:
    if text[:1] in ("'", '"'):
        try:
            return Segment(str(ast.literal_eval(text)), "key")
        except (SyntaxError, ValueError):
            pass
    if re.fullmatch(r"\d+|\d*:\d*", text):
        return Segment(text, "index")
    return Segment(text, "key")


def matches(pattern: Sequence[Segment], path: Sequence[Segment], *, exactly: bool = False) -> bool:
    """Tell whether a pattern names a path or, unless `exactly`, something that the path lies in."""
    if not pattern:
        return not (exactly and path)
    first, *rest = pattern
    if first.key == ANY_DEPTH:
        return any(matches(rest, path[i:], exactly=exactly) for i in range(len(path) + 1))
    return bool(path) and _agrees(first, path[0]) and matches(rest, path[1:], exactly=exactly)


def _agrees(wanted: Segment, key: Segment) -> bool:
    """Tell whether one key is what a segment of a pattern says."""
    if wanted.key == "*":
        return True
    if wanted.form == "index":
        return key.form == "index" and _in_slice(wanted.key, int(key.key))
    if key.form == "index":
        return False
    return _glob(wanted.key).fullmatch(key.key) is not None


def _in_slice(wanted: str, index: int) -> bool:
    start, colon, stop = wanted.partition(":")
    if not colon:
        return int(wanted) == index
    return int(start or 0) <= index and (not stop or index < int(stop))


@functools.lru_cache(4096)
def _glob(text: str) -> re.Pattern[str]:
    parts = re.split(r"([*?])", text)
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(p) or re.escape(p) for p in parts), re.DOTALL)


def near_misses(pattern: str, paths: Iterable[str]) -> list[str]:
    """Return what somebody may have meant by a pattern that names none of these paths.

    Returns:
        The pattern with its unknown names replaced by the nearest ones if that names a path, else
        the paths that are nearest to it.
    """
    known = {path: keys_of(path) for path in paths}
    names = sorted({s.key for path in known.values() for s in path if s.form != "index"})
    mended = [_nearest(wanted, names) for wanted in segments(pattern)]
    if any(matches(mended, path) for path in known.values()):
        return [_written(mended)]
    return difflib.get_close_matches(pattern, list(known), n=3, cutoff=0.3)


def _nearest(wanted: Segment, names: list[str]) -> Segment:
    if wanted.form == "index" or any(_glob(wanted.key).fullmatch(name) for name in names):
        return wanted
    near = difflib.get_close_matches(wanted.key, names, n=1)
    return wanted._replace(key=near[0]) if near else wanted


def _written(pattern: Sequence[Segment]) -> str:
    parts = []
    for key, form in pattern:
        quoted = form == "key" and key != "*"
        parts.append(f".{key}" if form == "name" else f"[{key!r}]" if quoted else f"[{key}]")
    return "".join(parts).removeprefix(".")
