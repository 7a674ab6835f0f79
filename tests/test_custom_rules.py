"""Functions with a derivative of their own that read or write state (S6, S9)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from cells import Cell, H, W, X
from hosts import Host, both, close
from jax import lax

import oryxstate as ox

SLOPE = jnp.float32(100)  # what a rule says that the derivative is, so that one sees who is asked


def custom_jvp(function, zeros=False):
    run = jax.custom_jvp(function)

    def rule(primals, tangents):
        (dot,) = tangents
        return run(*primals), SLOPE * dot

    run.defjvp(rule, symbolic_zeros=zeros)
    return run


def custom_vjp(function, zeros=False):
    run = jax.custom_vjp(function)
    run.defvjp(lambda x: (function(x), None), lambda _, bar: (SLOPE * bar,))
    return run


CUSTOM = pytest.mark.parametrize("custom", [custom_jvp, custom_vjp])


def reading(m, x, custom):
    """Reads state, and writes none."""
    return custom(lambda x: m.h * x)(x)


def calling(m, x, custom):
    """Reads and writes state."""
    return custom(lambda x: m(x))(x)


def writing(m, x, custom):
    """Writes what does not reach the output."""

    def function(x):
        m.assign(h=m.h + x)
        return 2 * x

    return custom(function)(x)


def host(step, custom, h=H):
    return Host(Cell(W, h), lambda m, x: step(m, x, custom))


def of_input(step, custom):
    return jax.grad(lambda x: ox.call(host(step, custom), x))


def of_state(step, custom):
    return jax.grad(lambda h: ox.call(host(step, custom, h), X))


@CUSTOM
@pytest.mark.parametrize("step", [reading, calling, writing])
def test_the_rule_is_asked_for_the_output(step, custom):
    for run in both(of_input(step, custom)):
        close(run(X), SLOPE)


@CUSTOM
@pytest.mark.parametrize("step", [reading, calling])
def test_the_derivative_with_respect_to_state_is_refused(step, custom):
    for run in both(of_state(step, custom)):
        with pytest.raises(
            ox.EffectError, match=r"state 'inner.h' is read inside `custom_(jvp|vjp)`"
        ):
            run(H)


@CUSTOM
def test_with_respect_to_state_that_does_not_reach_the_output_it_is_not_refused(custom):
    def both_parts(h):
        y, new = ox.call_and_update(host(writing, custom, h), X)
        return y + new.inner.h

    for run in both(jax.grad(both_parts)):
        close(run(H), jnp.float32(1))


@CUSTOM
def test_new_state_has_the_natural_derivative(custom):
    for run in both(jax.grad(lambda x: ox.update(host(writing, custom), x).inner.h)):
        close(run(X), jnp.float32(1))


def live_in_backward(m, x, _):
    """The rule for the backward pass reads the state with which the function was called."""
    run = jax.custom_vjp(lambda x: m.h * x)
    run.defvjp(lambda x: (m.h * x, None), lambda _, bar: (m.h * bar,))
    y = run(x)
    m.assign(h=jnp.float32(9))
    return y


def live_in_jvp(m, x, _):
    run = jax.custom_jvp(lambda x: m.h * x)
    run.defjvp(lambda primals, tangents: (run(*primals), m.h * tangents[0]))
    y = run(x)
    m.assign(h=jnp.float32(9))
    return y


@pytest.mark.parametrize("step", [live_in_backward, live_in_jvp])
def test_a_rule_reads_state_of_its_time_backward_and_forward(step):
    for run in both(of_input(step, None)):
        close(run(X), H)


@CUSTOM
@pytest.mark.parametrize("step", [reading, writing])
def test_a_rule_that_runs_after_the_call_in_a_loop(step, custom):
    """JAX differentiates the body of a loop when it differentiates the loop."""

    def loop(m, x, custom):
        return lax.scan(lambda x, _: (step(m, x, custom), None), x, None, length=2)[0]

    for run in both(of_input(loop, custom)):
        close(run(X), SLOPE**2)


class Instantiated(Exception):
    """Raised by a rule that was given symbolic zeros, which it did not ask for."""


def expect_arrays(*values: Any) -> None:
    if not all(isinstance(x, jax.Array) for x in values):
        raise Instantiated


def test_a_custom_jvp_rule_is_given_no_symbolic_zeros():
    def step(m, x, _):
        run = jax.custom_jvp(lambda a, b: m(a) * b)

        def rule(primals, tangents):
            expect_arrays(*tangents)
            return run(*primals), sum(tangents)

        run.defjvp(rule)
        return run(x, jnp.float32(2))

    for run in both(of_input(step, None)):
        close(run(X), jnp.float32(1))


def test_a_custom_vjp_rule_is_given_no_symbolic_zeros():
    def step(m, x, _):
        run = jax.custom_vjp(lambda x: (m.h * x, 3 * x))

        def backward(_, bars):
            expect_arrays(*bars)
            return (bars[0] + 10 * bars[1],)

        run.defvjp(lambda x: ((m.h * x, 3 * x), None), backward)
        return run(x)[1]

    for run in both(of_input(step, None)):
        close(run(X), jnp.float32(10))


def test_a_root_that_reads_state_has_its_derivative():
    def step(m, p, _):
        def residual(x):
            return 2 * x - p * m.h

        y = lax.custom_root(
            residual, jnp.float32(0), lambda f, x: x - f(x) / 2, lambda g, y: y / g(jnp.float32(1))
        )
        m.assign(h=m.h + 1)
        return y

    for run in both(of_input(step, None)):
        close(run(X), H / 2)


def test_new_state_of_a_linear_solve_has_the_natural_derivative():
    def step(m, b, _):
        def solve(_, b):
            m.assign(h=m.h + b * b)
            return b / 2

        return lax.custom_linear_solve(lambda x: 2 * x, b, solve, symmetric=True)

    for run in both(jax.grad(lambda b: ox.update(host(step, None), b).inner.h)):
        close(run(X), 2 * X)
