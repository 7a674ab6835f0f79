"""The inputs of programs, what the oracle expects, and the comparison."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume
from programs import oracle, states
from programs.dual import MeaninglessError, NearlyError, constant
from programs.refusals import known_to_jax

INPUTS = 0.7, -0.2


def meaning(node, function, *args):
    """What a function of the oracle's gives, None if the program has no meaning."""
    assume(known_to_jax(node))
    try:
        return function(*args)
    except NearlyError:
        assume(False)
    except MeaninglessError:
        return None


def expected(node, state, x):
    """`(output, new state)` by the oracle, None if it has no meaning."""
    end = meaning(node, oracle.run, node, state, x)
    return None if end is None or not finite(end[0], *states.arrays(end[1])) else end


def finite(*values):
    """Whether no number is NaN, which stands for one that must be refused; none may be huge."""
    numbers = [constant(x) for value in values for x in np.ravel(value)]
    if any(math.isnan(x) for x in numbers):
        return False
    assume(all(abs(x) < states.HUGE or isinstance(x, np.integer) for x in numbers))
    return True


def agree(result, before, end):
    """An output and a model against what the oracle says."""
    assert end is not None, "what has no meaning was not refused"
    (y, new), (expected_y, state) = result, end
    np.testing.assert_allclose(y, constant(expected_y), **states.CLOSE)
    states.compare(new, before, state)
