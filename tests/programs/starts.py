"""The states that programs begin with, as the oracle writes them."""

from __future__ import annotations

from typing import Any


def start(shift: float) -> dict:
    """A state to begin with."""
    cells = ((0.2, 0), (-0.4, 1), (1.0, 2), (0.3, 3), (-0.1, 4))
    return {
        "cells": tuple((s + shift, n) for s, n in cells),
        "ensemble": tuple((s + shift, n) for s, n in ((0.1, 0), (0.2, 5), (0.3, 9))),
        "stack": tuple((s - shift, n) for s, n in ((0.6, 1), (-0.2, 0), (0.1, 3))),
        "pairs": tuple(
            ((s + shift, n), (0.5 * s, n + 1)) for s, n in ((-0.3, 2), (0.5, 0), (0.7, 1))
        ),
        "tree": (0.1 + shift, 0.2, -0.3 * shift),
        "reduced": 0.4 - shift,
        "key": (int(10 * shift), 0),
        "weight": 0.8,
    }


OTHER = start(0.4)  # of a model that is not a part of the one that is called


def shifted(state: dict, by: Any) -> dict:
    """The state with a number added to what `ours_threads.shifted` adds it to."""
    return {
        **state,
        "cells": tuple((s + by if i < 3 else s, n) for i, (s, n) in enumerate(state["cells"])),
        "stack": tuple((s + by, n) for s, n in state["stack"]),
        "reduced": state["reduced"] + by,
    }


def total(state: dict) -> Any:
    """The sum of what `ours_threads.total` adds up."""
    cells = sum(s for s, _ in state["cells"][:3])
    return cells + sum(s for s, _ in state["stack"]) + state["reduced"] + state["tree"][0]
