"""Windows along the spatial axes of an input: lengths, strides and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import lax

from oryxstate.nn._precision import positive

Lengths = int | Sequence[int]
Padding = str | int | Sequence[Sequence[int]]
Pads = tuple[tuple[int, int], ...]

_AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


class Windows(NamedTuple):
    """Windows that slide over spatial axes.

    Attributes:
        reach: the length of a window along each axis, dilation included.
        strides: the steps from one window to the next.
        padding: "SAME", "VALID", "CIRCULAR", or the lengths before and after each axis.
        dilation: the steps from one element of a window to the next.
    """

    reach: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | Pads
    dilation: tuple[int, ...]

    @classmethod
    def along(
        cls, axes: int, lengths: Lengths, strides: Lengths, padding: Padding, dilation: Lengths = 1
    ) -> Windows:
        """Make windows along this number of axes; an integer applies to each of them."""
        sizes = zip(spread(lengths, axes), spread(dilation, axes), strict=True)
        reach = tuple(step * (length - 1) + 1 for length, step in sizes)
        pads: Any = ((padding, padding),) * axes if isinstance(padding, int) else padding
        return cls(reach, spread(strides, axes), pads, spread(dilation, axes))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of elements of a window along each axis."""
        sizes = zip(self.reach, self.dilation, strict=True)
        return tuple((reach - 1) // step + 1 for reach, step in sizes)

    def pads(self, spatial: tuple[int, ...]) -> Pads:
        """Return the lengths before and after each axis of an input with these spatial axes."""
        if self.padding == "CIRCULAR":  # as in Flax, independent of the strides
            return tuple(((n - 1) // 2, n // 2) for n in self.reach)
        if isinstance(self.padding, str):
            return tuple(lax.padtype_to_pads(spatial, self.reach, self.strides, self.padding))
        return self.padding

    def fit(self, spatial: tuple[int, ...]) -> bool:
        """Return whether there is at least one window, and nothing in the input is empty."""
        if min(spatial) == 0:
            return False
        sizes = zip(spatial, self.pads(spatial), self.reach, strict=True)
        return all(n + low + high >= reach for n, (low, high), reach in sizes)


def frozen(value: Any) -> Any:
    """Replace lists by tuples, so that the value can be static."""
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def spread(value: Lengths, axes: int) -> tuple[int, ...]:
    """Return one integer for each axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def axes_of(*settings: Any) -> int | None:
    """Return the number of spatial axes that settings are made for, None if they suit any."""
    counts = [len(s) for s in settings if isinstance(s, list | tuple)]
    return counts[0] if counts else None


def shape_of(axes: int | None, channels: int | str = "channels") -> str:
    """Return the shape of one example in words, for messages."""
    if axes is None:
        return f"1 to 3 spatial axes and channels last, [..., {channels}]"
    return f"[{_AXES[axes]}, {channels}]"


def room_for(windows: Windows, channels: int | str = "channels") -> str:
    """Return the shape of an input that windows fit into in words, for messages."""
    reach = " x ".join(map(str, windows.reach))
    padding = windows.padding
    padded = "" if padding == "VALID" else f" with padding {padding!r}"
    return f"{shape_of(len(windows.reach), channels)} in which a window of {reach} fits{padded}"


def check_windows(layer: str, padding: Any, modes: tuple[str, ...], **lengths: Any) -> None:
    """Raise for settings that are not valid for windows.

    Args:
        layer: the name of the class.
        padding: as configured.
        modes: the strings that it may be.
        **lengths: positive integers, one for all axes or one for each axis.

    Raises:
        ValueError: naming the layer and the setting.
    """
    for what, value in lengths.items():
        positive(layer, what, *(value if isinstance(value, list | tuple) else (value,)))
    if not _is_padding(padding, modes):
        names = ", ".join(map(repr, modes))
        raise ValueError(
            f"{layer}: `padding` must be {names}, an integer, or a pair (before, after) for each "
            f"spatial axis, none of them negative, got {padding!r}."
        )
    counts = {w: len(v) for w, v in lengths.items() if isinstance(v, list | tuple)}
    if isinstance(padding, list | tuple):
        counts["padding"] = len(padding)
    for what, count in counts.items():
        if not 1 <= count <= 3:
            raise ValueError(f"{layer}: `{what}` is for {count} spatial axes; 1 to 3 are possible.")
        first = next(iter(counts))
        if count != counts[first]:
            raise ValueError(
                f"{layer}: `{what}` is for {count} spatial axes, but `{first}` for {counts[first]}."
            )


def _is_padding(padding: Any, modes: tuple[str, ...]) -> bool:
    if isinstance(padding, str):
        return padding in modes
    if not isinstance(padding, list | tuple):
        return _is_length(padding)
    return all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_length, pair))
        for pair in padding
    )


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
