"""The meaning of functions with derivative rules of their own.

The rule gives the derivative of the outputs with respect to the explicit arguments, the new state
has its natural one. A rule says nothing about state that carries a tangent: where such state
reaches an output its slope here is NaN, which stands for a derivative that must be refused.
"""

from __future__ import annotations

from typing import Any

from programs.dual import constant, unless_equal
from programs.grammar import BACKWARD, SECOND, SLOPE


def constants(tree: Any) -> Any:
    """A state, or a part of one, without any slope."""
    if isinstance(tree, dict):
        return {key: constants(value) for key, value in tree.items()}
    return tuple(map(constants, tree)) if isinstance(tree, tuple) else constant(tree)


def _known(body, state, x):
    """The output without what state contributes to its slope, the new state, and the silence."""
    y, new = body(state, x)
    known = body({**constants(state), "weight": state["weight"]}, x)[0]
    return known, new, unless_equal(y, known)


def ruled(slope: Any) -> Any:
    """The rule multiplies the tangent."""

    def call(body, state, x, _):
        y, new, silence = _known(body, state, x)
        return constant(y) + slope(state) * (x - constant(x)) + silence, new

    return call


def _natural(body, state, x, _):
    """The backward pass differentiates the function itself, with respect to its argument."""
    y, new, silence = _known(body, state, x)
    return y + silence, new


def _two(body, state, x, _):
    """`f(x, 1) + f(0.3, x)`, where `f(x, k)` is the body of `x` and half of `k`."""
    y, state = ruled(lambda state: SLOPE)(body, state, x, 0)
    z, state, silence = _known(body, state, 0.3)
    z = constant(z) + 0.5 * constant(x) + SECOND * (x - constant(x)) + silence
    return y + 0.5 + z, state


def _asserts(body, state, x, _):
    y, state = ruled(lambda state: SLOPE)(body, state, x, 0)
    return y + 0.5, state


def _forward(body, state, x, _):
    """`f(x) + k / 2` with k 1; the rule differentiates the function itself."""
    y, new = _natural(body, state, x, 0)
    return y + 0.5, new


def _slope_of_state(state):
    return SLOPE + 0.1 * constant(state["cells"][0][0])


CALLS = {
    "custom_jvp": ruled(lambda state: SLOPE),
    "custom_vjp": ruled(lambda state: SLOPE),
    "custom_jvp read": ruled(_slope_of_state),
    **dict.fromkeys(BACKWARD, _natural),
    # What the function closes over is an argument of the converted one.
    "backward converted": lambda body, state, x, _: body(state, x),
    "backward reads": ruled(_slope_of_state),
    "backward two": _two,
    "backward asserts": _asserts,
    "forward": _natural,
    "forward nondiff": ruled(lambda state: SLOPE),
    "forward asserts": _forward,
}
