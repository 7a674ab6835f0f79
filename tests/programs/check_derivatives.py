"""The checks of a program's derivatives: of one root call, and of several through time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from programs import oracle, ours_threads, starts, states
from programs.dual import derivative
from programs.expected import INPUTS, agree, expected, finite, meaning
from programs.nodes import RULES, holds
from programs.refusals import attempt

STEPS = 2


def _by_weight(node):
    """Whether JAX differentiates by the weight: its rules know no closed-over parameter."""
    return not holds(node, *RULES, "linear_solve")


def by_input_and_parameter(node):
    """The gradients with respect to the input and to a parameter, and the state beside them."""
    start, x = starts.start(0.0), INPUTS[0]
    model, end = states.model(node, start), expected(node, start, x)
    argnums = (0, 1) if _by_weight(node) else (1,)

    @jax.jit
    def gradients(weight, x):
        def run(weight, x):
            return model.replace(parts=model.parts.replace(weight=weight)).call_and_update(x)

        return jax.value_and_grad(run, argnums, has_aux=True)(weight, x)

    result = attempt(node, gradients, model.parts.weight, jnp.float32(x), differentiated=True)
    if result is None:
        return
    agree(result[0], model, end)

    def slopes():
        by_x = derivative(lambda x: oracle.run(node, start, x), x)[1]
        by_weight = derivative(
            lambda weight: oracle.run(node, {**start, "weight": weight}, x), start["weight"]
        )[1]
        return (by_weight, by_x)[-len(argnums) :]

    _compare(result[1], meaning(node, slopes))


def through_time(node):
    """The gradients of several calls in a row with respect to state, input and parameter.

    Once in a loop of Python's and once with the model as the carry of a scan.
    """
    start = starts.start(0.0)
    model = states.model(node, start)
    argnums = (0, 1, 2) if _by_weight(node) else (0, 1)
    arguments = 0.0, INPUTS[0], start["weight"]

    @jax.jit
    def gradients(*arguments):
        return [
            jax.value_and_grad(_loss, argnums)(*arguments, model, loop)
            for loop in (_in_python, _in_scan)
        ]

    result = attempt(
        node, gradients, *map(jnp.float32, arguments), differentiated=True, by_state=True
    )
    if result is None:
        return

    def slopes():
        return [
            derivative(
                lambda a, i=i: (
                    _expected_loss(node, start, *arguments[:i], a, *arguments[i + 1 :]),
                    (),
                ),
                arguments[i],
            )
            for i in argnums
        ]

    ends = meaning(node, slopes)
    for got in result:
        _compare(jax.tree.leaves(got), ends and [ends[0][0], *(slope for _, slope, _ in ends)])


def _loss(shift, x, weight, model, loop):
    parts = ours_threads.shifted(model.parts, shift).replace(weight=weight)
    total, model = loop(model.replace(parts=parts), x)
    return total + 0.3 * ours_threads.total(model.parts)


def _in_python(model, x):
    total = 0.0 * x
    for _ in range(STEPS):
        x, model = model.call_and_update(x)
        total = total + x
    return total, model


def _in_scan(model, x):
    def body(carry, _):
        model, x = carry
        x, model = model.call_and_update(x)
        return (model, x), x

    (model, _), xs = jax.lax.scan(body, (model, x), None, length=STEPS)
    return xs.sum(), model


def _expected_loss(node, start, shift, x, weight):
    state, total = {**starts.shifted(start, shift), "weight": weight}, 0.0
    for _ in range(STEPS):
        x, state = oracle.run(node, state, x)
        total = total + x
    return total + 0.3 * starts.total(state)


def _compare(numbers, wanted):
    assert wanted is not None and finite(wanted), "what has no meaning was not refused"
    np.testing.assert_allclose(numbers, wanted, **states.CLOSE)
