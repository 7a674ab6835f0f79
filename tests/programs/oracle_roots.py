"""The meaning of root calls inside a call: pure functions, with their true derivatives."""

from __future__ import annotations

from programs import starts
from programs.dual import MeaninglessError, derivative
from programs.grammar import KEPT, THREADS
from programs.oracle_rules import constants


def _pure(body, state, x, _):
    return body(state, x)[0], state


def _kept_update(body, state, x, _):
    return body(state, x)


def _of_other(body, state, x, _):
    y, new = body(starts.OTHER, x)
    return y + 0.1 * new["cells"][0][0], state


def _of_both(keeps):
    def call(body, state, x, _):
        other, _ = body(starts.OTHER, x)
        y, new = body(state, x)
        return 0.5 * (y + other), new if keeps else state

    return call


def _unchanged(body, state, x, _):
    """What has a meaning only if it writes nothing."""
    y, new = body(state, x)
    if constants(new) != constants(state):
        raise MeaninglessError
    return y, state


def _refused(body, state, x, _):
    raise MeaninglessError


def _change(body, state, x, _):
    y, new = body(state, x)
    return y + 0.1 * (new["cells"][0][0] - state["cells"][0][0]), new


def _again(body, state, x, _):
    y, new = body(state, x)
    return 0.5 * (y + body(new, x)[0]), new


def thread(body, state, x, number):
    """Several root calls in a row, each from the state that the one before it left."""
    for i in range(number):
        y, state = body(state, x)
        x = 0.5 * y + 0.1 * i
    return x, state


def _thread_grad(body, state, x, number):
    def loss(shift):
        y, new = thread(body, starts.shifted(state, shift), x, number)
        return y + 0.3 * starts.total(new), ()

    y, slope, _ = derivative(loss, 0.0)
    return 0.5 * y + slope, state


CALLS = {
    "root": _pure,
    "root update": _kept_update,
    "other root": _of_other,
    "other root argument": _of_both(False),
    "other root shared": _of_both(True),
    # A live module acts on its own place, or is refused.
    "other root reaches": _kept_update,
    **dict.fromkeys(KEPT, _refused),
    "snapshot stays": _kept_update,
    "snapshot change": _change,
    "snapshot called": _unchanged,
    "snapshot traced": _again,
    **dict.fromkeys(THREADS, thread),
    "thread grad": _thread_grad,
}
