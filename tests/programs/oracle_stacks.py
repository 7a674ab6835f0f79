"""The meaning of stacked layers: each reads and writes its own slice, one layer after another."""

from __future__ import annotations

from programs.dual import MeaninglessError, derivative
from programs.oracle_cells import member

LAYERS = 3


def call(node, state, x):
    """A call of each layer of `state["stack"]`, or of each pair of `state["pairs"]`."""
    variant = node.variant
    if variant == "index" and node.kind != "read":
        raise MeaninglessError
    if variant.startswith("map") or variant == "index":
        total = 0.0
        for i in range(LAYERS):
            y, state = _layer(node, state, i, x + 0.1 * i)
            total = total + y
        return total * (1 / LAYERS), state
    for i in reversed(range(LAYERS)) if variant == "scan reverse" else range(LAYERS):
        x, state = _layer(node, state, i, x)
        if variant == "scan twice":
            x, state = _layer(node, state, i, x)
        if variant == "scan nested":
            for j in range(LAYERS):
                x, state = _pair(node, state, j, x)
        if variant == "scan several":
            x, state = _pair(node, state, i, x)
            x = 0.5 * x + 0.1 * i
    return x, state


def _layer(node, state, index, x):
    if "container" in node.variant:
        return _pair(node, state, index, x)
    return _step(node.kind, state, index, x)


def _step(kind, state, index, x):
    stack = state["stack"]
    y, cell = member(kind, stack[index], x)
    return y, {**state, "stack": _at(stack, index, cell)}


def _pair(node, state, index, x):
    first, second = state["pairs"][index]
    x, second = member(node.kind, second, x)
    x, first = member(node.kind, first, x)
    return x, {**state, "pairs": _at(state["pairs"], index, (first, second))}


def _at(items, index, new):
    return (*items[:index], new, *items[index + 1 :])


def _stacked(run_layer, order=iter):
    def loop(body, state, x, _):
        for i in order(range(LAYERS)):
            y, state = body(state, x)
            x, state = run_layer(state, i, 0.5 * y)
        return x, state

    return loop


def _accumulate(state, index, x):
    return _step("accumulate", state, index, x)


def _sometimes(state, index, x):
    return (x, state) if index == 1 else _accumulate(state, index, x)


def _slope(state, index, x):
    y, slope, state = derivative(lambda x: _accumulate(state, index, x), x)
    return 0.5 * y + slope, state


def _map(body, state, x, _):
    total = 0.0
    for i in range(LAYERS):
        y, state = body(state, x)
        y, state = _accumulate(state, i, y + 0.1 * i)
        total = total + y
    return total * (1 / LAYERS), state


CALLS = {
    "stacked": _stacked(_accumulate),
    "stacked reverse": _stacked(_accumulate, reversed),
    "stacked map": _map,
    "stacked cond": _stacked(_sometimes),
    "stacked grad": _stacked(_slope),
}
