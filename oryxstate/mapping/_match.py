"""Comparison of saved arrays with a model, before any of them is loaded."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from oryxstate._errors import MismatchError
from oryxstate._tree import named_leaves
from oryxstate.mapping._entries import Entries
from oryxstate.mapping._targets import problem, target

HINTED = 10_000  # pairs of paths that are compared to suggest renamed ones: about 0.3 s


@dataclasses.dataclass(frozen=True)
class Report:
    """What was loaded, and what was not.

    Attributes:
        loaded: the paths of the model that got saved values.
        kept: the paths of the model that were not selected and stay as they were.
        unused: the saved paths, after the mapping, that were not selected.
        cast: for each path loaded with another dtype, the saved and the new one.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]
    cast: Mapping[str, tuple[str, str]]

    def __str__(self) -> str:
        casts = [f"{path} ({old} to {new})" for path, (old, new) in self.cast.items()]
        lines = [f"loaded {len(self.loaded)} of {len(self.loaded) + len(self.kept)} leaves"]
        for what, paths in (("kept", self.kept), ("unused", self.unused), ("cast", casts)):
            if paths:
                lines.append(f"  {what}: {', '.join(paths)}")
        return "\n".join(lines)


def compare(entries: Entries, into: Any, select: Any, source: str) -> Report:
    """Compare what is saved with a model that it is to be loaded into.

    Args:
        entries: what is saved, by path, after the mapping.
        into: the model, whose leaves may be specs.
        select: which leaves to load: None for all, a predicate on paths, or an object whose method
            `paths(model)` lists those of a model.
        source: the file or folder, for errors.

    Raises:
        MismatchError: listing every path that is missing, left over, or does not fit.
        ValueError: if the selection matches no leaf.
    """
    leaves = named_leaves(into)
    chosen, wants = _selected(select, into, leaves)
    missing = [path for path in chosen if path not in entries]
    extra = [path for path in entries if path not in leaves and wants(path)]
    wanted = {path: target(path, leaves[path]) for path in chosen if path in entries}
    misfits = {path: problem(entries[path], spec) for path, spec in wanted.items()}
    misfits = {path: text for path, text in misfits.items() if text}
    if missing or extra or misfits:
        raise MismatchError(_text(source, missing, extra, misfits, entries, leaves))
    return Report(
        loaded=tuple(chosen),
        kept=tuple(path for path in leaves if path not in wanted),
        unused=tuple(path for path in entries if path not in wanted),
        cast={
            path: (entries[path].dtype, spec.dtype)
            for path, spec in wanted.items()
            if entries[path].dtype != spec.dtype
        },
    )


def _selected(
    select: Any, into: Any, leaves: Mapping[str, Any]
) -> tuple[list[str], Callable[[str], bool]]:
    """Return the selected paths of the model, and whether a saved path is wanted."""
    if select is None:
        return list(leaves), lambda path: True
    if hasattr(select, "paths"):
        paths = set(select.paths(into))
        chosen = [path for path in leaves if path in paths]
        wants = getattr(select, "wants", lambda path: False)
    else:
        chosen, wants = [path for path in leaves if select(path)], select
    if not chosen:
        some = ", ".join(list(leaves)[:5])
        raise ValueError(
            f"the selection matches no leaf of the model, whose leaves are {some}, ..."
        )
    return chosen, wants


def _text(
    source: str,
    missing: list[str],
    extra: list[str],
    misfits: Mapping[str, Any],
    entries: Entries,
    leaves: Mapping[str, Any],
) -> str:
    lines = [f"{source} does not fit the model; nothing was loaded."]
    for i, path in enumerate(missing, 1):
        near = []
        if i * len(extra) <= HINTED:
            near = difflib.get_close_matches(path, extra, 1, 0.75)
        hint = f" (is it '{near[0]}'?)" if near else ""
        lines.append(f"  missing: '{path}', {target(path, leaves[path])}{hint}")
    lines += [f"  left over: '{path}', {entries[path]}" for path in extra]
    lines += [f"  does not fit: '{path}', {text}" for path, text in misfits.items()]
    lines.append(
        "Give a `mapping` of paths (`oryxstate.mapping`), or `select` what to load and leave the "
        "rest."
    )
    return "\n".join(lines)
