"""The errors of selections that select nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from oryxstate._select._places import STATIC, Place


def all_parts(given: Any) -> Iterator[Any]:
    """Yield a selection and all that it is made of."""
    yield given
    for part in given.parts():
        yield from all_parts(part)


def check(given: Any, found: list[Place], asked: list[Place], chosen: list[Place]) -> None:
    """Raise if nothing is selected, or a path or a field in a selection is nowhere in the tree.

    Args:
        given: the selection.
        found: all places of the tree.
        asked: those that it may select; a predicate is asked about no others.
        chosen: those that it selects.
    """
    for part in all_parts(given):
        if part.typed and not part.parts() and not any(map(part.holds, found)):
            where = "" if part is given else f", which occurs in {given!r}"
            raise ValueError(f"nothing is selected by {part!r}{where}.{part.hint(found)}")
    if chosen:
        return
    atoms = [part for part in all_parts(given) if not part.parts()]
    if len(atoms) == 1:
        by_name = not atoms[0].of_leaves
        hint = (by_name and _no_leaves(given, found)) or atoms[0].hint(found)
        raise ValueError(f"nothing is selected by {given!r}.{hint}")
    leaves = [place for place in asked if place.is_leaf]
    counts = ", ".join(f"{atom!r} selects {sum(map(atom.holds, leaves))}" for atom in atoms)
    raise ValueError(
        f"nothing is selected by {given!r}. Of {len(leaves)} leaves, {counts} by itself."
    )


def _no_leaves(given: Any, found: list[Place]) -> str:
    """Return what a selection names besides arrays: places that hold None, and static values."""
    held = [place for place in found if given.holds(place)]
    nothing = [place.path for place in held if place.kind != STATIC and not place.is_leaf]
    if nothing:
        return (
            f" It names only places that hold None, such as {nothing[0]!r}: leaves that "
            "`ox.partition` took out, or fields that were left out."
        )
    statics = [place for place in held if place.kind == STATIC and place.value is not None]
    if statics:
        what = "leaves that are not arrays" if statics[0].is_leaf else "static fields"
        return (
            f" It names only {what}, such as {statics[0].path!r}. To select them, write "
            f"`{given!r} & select.static`."
        )
    return ""


def did_you_mean(names: list[str], quote: Callable[[str], str] = repr) -> str:
    """Return a sentence that offers names, if there are any."""
    return f" Did you mean {' or '.join(map(quote, names))}?" if names else ""


def there_are(what: str, names: list[str]) -> str:
    """Return a sentence that lists what a tree has."""
    return f" The tree has the {what}: {', '.join(names)}." if names else " The tree has no leaves."
