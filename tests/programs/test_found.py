"""Minimal programs that found faults, each with the check that it failed."""

from __future__ import annotations

import pytest
from programs import check
from programs.grammar import Cell, Host, Other, Stack, Two, Within

pytestmark = pytest.mark.filterwarnings("ignore:Using `assume` outside a property-based test")
ACCUMULATE = Cell(0, "accumulate")


def _after(node):
    """A program after a write that carries a tangent."""
    return Two("then", ACCUMULATE, node)


FOUND = {
    # State that enters a root call was a constant for derivatives.
    "explicit calls in a row": ("time", Cell(0, "explicit loop")),
    "explicit calls in a scan": ("time", Cell(0, "explicit scan")),
    "modules threaded by a loop": ("time", Within("thread fori", ACCUMULATE, 2)),
    "root call of another model": ("time", Within("other root shared", ACCUMULATE)),
    # A module handed to scan as xs was refused.
    "stack": ("time", Stack("twice", "scan reverse")),
    "stack in a container": ("alone", Stack("accumulate", "map container")),
    # Inside a shard_map JAX places each input of the body of a scan anew.
    "stack in a shard_map": ("alone", Within("shard_map", Stack("count", "scan"))),
    "stack in a shard_map, mapped": ("alone", Within("shard_map", Stack("accumulate", "map"))),
    "stack in a branch": ("derivative", Within("stacked cond", ACCUMULATE)),
    # What a callback wrote was lost.
    "write in a pure callback": ("alone", Host("pure write")),
    "write in a debug callback": ("alone", Host("debug write")),
    "snapshot in a callback": ("alone", _after(Host("io snapshot"))),
    # A module of another root call acted on a place with its path.
    "another root call reaches": ("alone", Within("other root reaches", ACCUMULATE)),
    "kept from an earlier call": ("alone", Within("kept earlier", ACCUMULATE)),
    "kept in a cached function": ("alone", Within("kept function", Other("sin"))),
    "kept from a call inside": ("alone", Within("kept own", ACCUMULATE)),
    "snapshot after a write": ("alone", Within("snapshot stays", ACCUMULATE)),
    "call of a snapshot": ("alone", Within("snapshot called", ACCUMULATE)),
    # The tangent of state was dropped in a function with a rule of its own.
    "tangent in a rule forward": ("alone", Within("grad", _after(Within("forward", ACCUMULATE)))),
    "tangent in a rule backward": ("alone", Within("grad", _after(Within("backward", ACCUMULATE)))),
    "module in a backward pass": (
        "alone",
        _after(Within("grad", Within("backward jit", Cell(1, "twice")))),
    ),
    "state in a backward pass": (
        "alone",
        _after(Within("vjp", Within("backward reads", Cell(1, "twice")))),
    ),
    "backward after the call": ("derivative", Within("backward reads", Cell(1, "twice"))),
    "root call backward": ("derivative", Within("backward", Within("root", Other("sin")))),
    "two patterns of tangents": ("derivative", Within("backward two", Cell(2, "read"))),
    "no tangent backward": ("derivative", Within("backward asserts", ACCUMULATE)),
    "no tangent forward": ("derivative", Within("forward asserts", ACCUMULATE)),
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name):
    outer, node = FOUND[name]
    check.OUTER[outer](node)
