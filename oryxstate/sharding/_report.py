"""The report of how arrays are placed on a mesh."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from jax.sharding import PartitionSpec

from oryxstate._tree import ArraySpec

HEAD = "path", "array", "axes", "on the mesh", "bytes", "per device"


class Placement(NamedTuple):
    """How one array is placed.

    Attributes:
        path: of the array.
        array: its shape and dtype.
        axes: the logical names of its axes.
        spec: the mesh axes that each of its axes is split along.
        shard: the shape of the part that one device has.
    """

    path: str
    array: ArraySpec
    axes: tuple[str | None, ...]
    spec: PartitionSpec
    shard: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The bytes of the whole array."""
        return self.array.size * self.array.dtype.itemsize

    @property
    def bytes_per_device(self) -> int:
        """The bytes that one device has."""
        return math.prod(self.shard) * self.array.dtype.itemsize


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """What `sharding.report` returns: data, and a table to print.

    Attributes:
        rows: the arrays, in the order of `jax.tree.leaves`.
        devices: the number of devices in the mesh.
    """

    rows: tuple[Placement, ...]
    devices: int

    @property
    def bytes(self) -> int:
        """The bytes of all arrays."""
        return sum(row.bytes for row in self.rows)

    @property
    def bytes_per_device(self) -> int:
        """The bytes that each device has."""
        return sum(row.bytes_per_device for row in self.rows)

    @property
    def unsharded(self) -> float:
        """The share of the bytes that is in arrays that are whole on every device."""
        whole = sum(row.bytes for row in self.rows if row.bytes == row.bytes_per_device)
        return whole / max(1, self.bytes)

    def check(self, max_unsharded: float) -> None:
        """Check the share of the bytes in arrays that are whole on every device.

        A mesh of a single device passes, since there is nothing to share.

        Raises:
            ValueError: if it is larger, with the largest of these arrays.
        """
        if self.devices == 1 or self.unsharded <= max_unsharded:
            return
        whole = [row for row in self.rows if row.bytes == row.bytes_per_device]
        largest = sorted(whole, key=lambda row: -row.bytes)[:3]
        shown = "; ".join(
            f"`{row.path}` {row.array} with axes ({_names(row.axes)}), {row.bytes:,} bytes"
            for row in largest
        )
        raise ValueError(
            f"{self.unsharded:.1%} of {self.bytes:,} bytes are in arrays that are whole on each of "
            f"{self.devices} devices, more than {max_unsharded:.1%}. The largest: {shown}. Add a "
            "rule for one of their names, name their axes, `ox.param(axes=...)`, or use the rule "
            "of `...`, as `sharding.FSDP` does."
        )

    def __repr__(self) -> str:
        table = [HEAD, *map(_cells, self.rows)]
        total = f"{len(self.rows)} arrays on {self.devices} devices"
        table.append((total, "", "", "", f"{self.bytes:,}", f"{self.bytes_per_device:,}"))
        widths = [max(len(row[i]) for row in table[:-1]) for i in range(len(HEAD))]
        widths[-2:] = [max(len(row[i]) for row in table) for i in (-2, -1)]
        first = sum(widths[:4]) + 9  # the columns that the total stands below
        lines = ["   ".join(_aligned(row, widths)) for row in table[:-1]]
        lines.append("   ".join([total.ljust(first), *_aligned(table[-1], widths)[4:]]))
        return "\n".join(lines)


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    cells = zip(row, widths, strict=True)
    return [c.rjust(n) if i > 3 else c.ljust(n) for i, (c, n) in enumerate(cells)]


def _cells(row: Placement) -> tuple[str, ...]:
    placed = [*row.spec, *(None,) * (len(row.axes) - len(row.spec))]
    on = ", ".join("+".join(axes) if isinstance(axes, tuple) else axes or "-" for axes in placed)
    sizes = f"{row.bytes:,}", f"{row.bytes_per_device:,}"
    return row.path, repr(row.array), _names(row.axes), on, *sizes


def _names(axes: tuple[str | None, ...]) -> str:
    return ", ".join(name or "-" for name in axes)
