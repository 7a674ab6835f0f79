"""Leaves of a checkpoint, read part after part into a pytree."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from oryxstate._tree import named_leaves
from oryxstate.checkpoint import _arrays, _disk
from oryxstate.checkpoint._folder import Damaged, manifest
from oryxstate.checkpoint._manifest import ARRAYS, Leaf, Manifest, scalar_from_text
from oryxstate.checkpoint._pieces import Block, Pieces, block, bounds, common
from oryxstate.mapping._convert import follow
from oryxstate.mapping._entries import Entries, Entry
from oryxstate.mapping._match import Report, compare
from oryxstate.mapping._rule import Rule
from oryxstate.mapping._targets import blocks_of, put, put_blocks


class Stored(NamedTuple):
    """An array in a file: its part, its path, and where it begins if it is a piece."""

    part: int | str
    path: str
    start: tuple[int, ...] | None = None

    @property
    def order(self) -> tuple[int, int]:
        """When its part is read: those of all processes side by side, as they were written."""
        if isinstance(self.part, int):
            return self.part, -1
        process, number = map(int, self.part.split("-"))
        return number, process


def read(folder: Path, into: Any, *, select: Any, rules: Sequence[Rule]) -> tuple[Any, Report]:
    """Read a checkpoint into a pytree like `into`."""
    found = manifest(folder)
    entries: Entries = {
        path: Entry.saved(path, leaf.shape, leaf.dtype) for path, leaf in found.leaves.items()
    }
    entries = follow(rules, entries)
    report = compare(entries, into, select, f"'{folder}'")
    loaded = dict(named_leaves(into))
    chosen = {path: entries[path] for path in report.loaded}
    for path, value in _values(folder, found, chosen, loaded):
        place = put_blocks if isinstance(value, Pieces) else put
        loaded[path] = place(value, loaded[path], path)
    return jax.tree.unflatten(jax.tree.structure(into), loaded.values()), report


def _values(
    folder: Path, found: Manifest, entries: Entries, into: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield values by path, part after part, holding no saved array longer than its last use."""
    in_blocks = _in_blocks(found, entries, into)
    sources = dict.fromkeys(source for entry in entries.values() for source in entry.sources)
    stored = {s: list(_stored(found.leaves[s], s, in_blocks.get(s))) for s in sources}

    def last_part(path: str) -> tuple[int, int]:
        orders = (each.order for source in entries[path].sources for each in stored[source])
        return max(orders, default=(0, -1))

    order = sorted(entries, key=last_part)
    last = {source: path for path in order for source in entries[path].sources}
    held: dict[Stored, np.ndarray] = {}
    parts = _parts(folder, found, [each for source in last for each in stored[source]])
    with contextlib.closing(parts):
        for path in order:
            for each in (each for source in entries[path].sources for each in stored[source]):
                while each not in held:
                    held |= next(parts)
            saved = {}
            for source in entries[path].sources:
                value = _value(found.leaves[source], [(e, held[e]) for e in stored[source]])
                whole = isinstance(value, Pieces) and source not in in_blocks
                saved[source] = value.whole() if whole else value
            yield path, entries[path].value(saved)
            for source in {s for s in entries[path].sources if last[s] == path}:
                for each in stored[source]:
                    del held[each]


def _parts(
    folder: Path, found: Manifest, wanted: Iterable[Stored]
) -> Generator[dict[Stored, np.ndarray]]:
    """Yield the wanted arrays of each part; while they go into the model, the next is read."""
    by_part: dict[int | str, list[Stored]] = {}
    for each in sorted(wanted, key=lambda each: each.order):
        by_part.setdefault(each.part, []).append(each)
    with ThreadPoolExecutor(1) as pool:
        ahead: Future | None = None
        for arrays in by_part.values():
            reading = pool.submit(_part, folder, found, arrays)
            if ahead is not None:
                yield ahead.result()
            ahead = reading
        if ahead is not None:
            yield ahead.result()


def _in_blocks(
    found: Manifest, entries: Entries, into: Mapping[str, Any]
) -> dict[str, list[Block]]:
    """Return the blocks of saved arrays that this process needs, where it does not need all."""
    uses = Counter(source for entry in entries.values() for source in entry.sources)
    blocks = {}
    for path, entry in entries.items():
        source = entry.sources[0] if entry.plain else None
        if source is not None and found.leaves[source].pieces and uses[source] == 1:
            wanted = blocks_of(into[path])
            if wanted is not None:
                blocks[source] = [bounds(index, entry.shape) for index in wanted]
    return blocks


def _stored(leaf: Leaf, path: str, blocks: Sequence[Block] | None) -> Iterator[Stored]:
    """Yield the arrays in files that hold a saved leaf, or some blocks of it."""
    if leaf.part is not None:
        yield Stored(leaf.part, path)
    for piece in leaf.pieces:
        own = block(piece.start, piece.shape)
        if blocks is None or any(common(own, each) is not None for each in blocks):
            yield Stored(piece.part, path, piece.start)


def _value(leaf: Leaf, arrays: Sequence[tuple[Stored, np.ndarray]]) -> Any:
    """Return a saved leaf, whose arrays have been read."""
    if leaf.pieces:
        inner = arrays[0][1].shape[len(leaf.shape) :]  # of the data of random keys
        pieces = [(each.start or (), array) for each, array in arrays]
        return Pieces((*leaf.shape, *inner), pieces)
    if leaf.value is not None:
        return scalar_from_text(leaf.dtype, leaf.value)
    if arrays:
        return arrays[0][1]
    keys = leaf.dtype.startswith("key<")
    return np.empty((*leaf.shape, 0) if keys else leaf.shape, "uint32" if keys else leaf.dtype)


def _part(folder: Path, found: Manifest, wanted: Sequence[Stored]) -> dict[Stored, np.ndarray]:
    """Read arrays of one part, whose files are checked first."""
    name = f"{ARRAYS}/{wanted[0].part}/"
    for file in (file for file in found.files if file.startswith(name)):
        if _disk.measure(folder / file) != found.files[file]:
            raise Damaged(folder, f"its file {file} is not the one that was written")
    if isinstance(wanted[0].part, int):
        read = _arrays.read(folder / name, [each.path for each in wanted])
        return {each: read[each.path] for each in wanted}
    pieces = {(each.path, each.start or ()): each for each in wanted}
    return {pieces[key]: x for key, x in _arrays.read_pieces(folder / name, pieces).items()}
