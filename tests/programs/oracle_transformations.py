"""The meaning of each transformation for a body `(state, x) -> (y, new state)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from programs import oracle_roots, oracle_rules, oracle_stacks
from programs.dual import MeaninglessError, above, constant, derivative
from programs.grammar import CALLS, SHIFTS

Body = Callable[[dict, Any], tuple[Any, dict]]


def within(kind: str, body: Body, state: dict, x: Any, number: int) -> tuple[Any, dict]:
    """Run a program inside a transformation: `(output, new state)`."""
    for table in TABLES:
        if kind in table:
            return table[kind](body, state, x, number)
    assert kind in (*CALLS, "shard_map whole")  # those that change nothing
    return body(state, x)


# Loops --------------------------------------------------------------------------------------------


def _loop(order=iter):
    def loop(body, state, x, number):
        for i in order(range(number)):
            y, state = body(state, x)
            x = 0.5 * y + 0.1 * i
        return x, state

    return loop


def _map(body, state, x, number):
    total = x
    for i in range(number):
        y, state = body(state, x + 0.1 * i)
        total = total + y
    return total, state


def _map_batched(body, state, x, number):
    """Pairs of examples, one pair after another."""
    total, xs = x, [x + 0.1 * i for i in range(number + 1)]
    for start in range(0, len(xs), 2):
        ys, state = examples(body, state, xs[start : start + 2])
        total = total + sum(ys)
    return total, state


def _while(uses_state):
    def loop(body, state, x, number):
        i = 0
        while i < number and (not uses_state or above(state["cells"][0][0], -5.0)):
            y, state = body(state, x)
            x, i = 0.5 * y, i + 1
        return x, state

    return loop


def _refused(body, state, x, number):
    raise MeaninglessError


def _associative(body, state, x, number):
    def combine(left, right):
        nonlocal state
        y, state = body(state, 0.1 * sum(left))
        return [0.5 * a + b + y for a, b in zip(left, right, strict=True)]

    def scan(xs):
        if len(xs) < 2:
            return xs
        odd = scan(combine(xs[:-1:2], xs[1::2]))
        even = combine(odd[: (len(xs) - 1) // 2], xs[2::2])
        return [xs[0], *(z for pair in zip(odd, [*even, None], strict=False) for z in pair)][
            : len(xs)
        ]

    return sum(scan([x + 0.1 * i for i in range(number + 1)])), state


_LOOPS = {
    **dict.fromkeys(
        ("scan", "scan unroll", "scan whole", "scan carry", "fori", "fori traced"), _loop()
    ),
    "scan reverse": _loop(reversed),
    "scan without carry": _map,
    "scan without xs": _while(False),
    "map": _map,
    "map batched": _map_batched,
    "while": _while(False),
    "while state": _while(True),
    "while carry": _while(False),
    "while writes": _refused,
    "associative_scan": _associative,
}


# Derivatives --------------------------------------------------------------------------------------


def _slopes(body, state, x):
    return derivative(lambda x: body(state, x), x)


def _combined(of_value, of_slope):
    def run_and_differentiate(body, state, x, _):
        y, slope, state = _slopes(body, state, x)
        # Not 0.0 * y, whose slope may be NaN.
        return (of_value * y + of_slope * slope if of_value else of_slope * slope), state

    return run_and_differentiate


def _hessian(body, state, x, _):
    def slope(x):
        _, slope, new = _slopes(body, state, x)
        return slope, new

    _, second, state = derivative(slope, x)
    return second, state


_DERIVATIVES = {
    **dict.fromkeys(
        ("grad", "grad argument", "jacfwd", "jacrev", "eqx.filter_grad"), _combined(0.0, 1.0)
    ),
    **dict.fromkeys(("jvp", "vjp", "vjp aux", "linearize"), _combined(0.5, 2.0)),
    "value_and_grad": _combined(1.0, 1.0),
    "hessian": _hessian,
}


# Batches ------------------------------------------------------------------------------------------


def examples(body: Body, state: dict, xs: list) -> tuple[list, dict]:
    """Run each example from the same state, which all must leave the same, or which is averaged."""
    ends = [body(state, x) for x in xs]
    states = [dict(end) for _, end in ends]
    reduced = sum(end.pop("reduced") for end in states) * (1 / len(xs))
    if any(_numbers(end) != _numbers(states[0]) for end in states):
        raise MeaninglessError
    return [y for y, _ in ends], {**states[0], "reduced": reduced}


def _numbers(tree):
    if isinstance(tree, dict):
        return [_numbers(value) for value in tree.values()]
    return [_numbers(value) for value in tree] if isinstance(tree, tuple) else constant(tree)


def _batch(body, state, x, _):
    ys, state = examples(body, state, [x + d for d in SHIFTS])
    return sum(ys) * (1 / 3), state


def _same(body, state, x, _):
    """No example differs: the body is given what all share."""
    ys, state = examples(body, state, [x] * 3)
    return sum(ys) * (1 / 3), state


def _mean(factor):
    def run_on_mean(body, state, x, _):
        xs = [x + d for d in SHIFTS]
        y, state = body(state, sum(xs) * factor)
        return y + sum(xs) * (1 / 3), state

    return run_on_mean


def _sharded(body, state, x, number):
    count = 2 ** min(number, 2)
    y, state = body(state, x + 0.05 * (count - 1))  # the mean of x + 0.1 * i over the devices
    return y + x + 0.05 * (count - 1), state


_BATCHES = {
    **dict.fromkeys(("vmap", "vmap out", "vmap argument", "eqx.filter_vmap"), _batch),
    "vmap of same": _same,
    "pmean": _mean(1 / 3),
    "psum": _mean(1.0),
    "nested": _mean(1 / 3),
    "shard_map": _sharded,
}


# Calls --------------------------------------------------------------------------------------------


def _none(body, state, x, _):
    return x, state


def _callback(body, state, x, _):
    y, state = body(state, x)
    return constant(y) + x, state


def _solve(body, state, x, _):
    return 0.5 * x, body(state, x)[1]


_CALLS = {
    "eval_shape": _none,
    "make_jaxpr": _none,
    "callback": _callback,
    "linear_solve": _solve,
}
TABLES = (
    _LOOPS, _DERIVATIVES, _BATCHES, _CALLS,
    oracle_rules.CALLS, oracle_roots.CALLS, oracle_stacks.CALLS,
)  # fmt: skip
