"""Solvers of other libraries, given modules that read and write state (`nox -s peers`).

Each is right or refused with a text that names the field and a remedy that works: a snapshot.
"""

from __future__ import annotations

import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optimistix
import pytest
from jax.experimental.ode import odeint
from jaxtyping import Array

import oryxstate as ox

START = jnp.float32(0.7), jnp.float32(1.3), jnp.float32(0.4)  # y0, rate, offset
ZERO = jnp.int32(0)  # no tracer: JAX's odeint may not close over one of an integer


class Field(ox.Module):
    """A vector field that reads state."""

    rate: Array = ox.param()
    offset: Array = ox.state()
    calls: Array = ox.state()

    def call(self, y):
        return self.offset - self.rate * y


class Counting(Field):
    """One that writes state too."""

    def call(self, y):
        self.assign(calls=self.calls + 1)
        return self.offset - self.rate * y


class Solve(ox.Module):
    field: Field
    solve: Any = ox.static()
    take: Any = ox.static()

    def call(self, y0):
        return self.solve(lambda y, field: ox.call(field, y), self.take(self.field), y0)


class SolveClosed(Solve):
    """The field is closed over."""

    def call(self, y0):
        field = self.take(self.field)
        return self.solve(lambda y, _: ox.call(field, y), None, y0)


class SolveLive(Solve):
    """The field is a live module, which an implicit call acts on."""

    def call(self, y0):
        return self.solve(lambda y, _: self.field(y), None, y0)


def ode(solver, **options):
    def solve(f, field, y0):
        term = diffrax.ODETerm(lambda t, y, field: f(y, field))
        return diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.1, y0, args=field, **options).ys[-1]

    return solve


def root(f, field, y0):
    def residual(y, field):
        return f(y, field) - y0

    newton = optimistix.Newton(1e-5, 1e-5)
    return optimistix.root_find(residual, newton, jnp.zeros_like(y0), args=field).value


def fixed(f, field, y0):
    def step(y, field):
        return 0.5 * f(y, field) + y0

    solver = optimistix.FixedPointIteration(1e-5, 1e-5)
    return optimistix.fixed_point(step, solver, jnp.zeros_like(y0), args=field).value


def linear(f, field, y0):
    operator = lineax.FunctionLinearOperator(
        lambda y: f(y, field) - f(jnp.zeros_like(y), field), jax.eval_shape(lambda: y0)
    )
    return lineax.linear_solve(operator, y0, lineax.AutoLinearSolver(well_posed=True)).value


def by_odeint(f, field, y0):
    return odeint(lambda y, t, field: f(y, field), y0, jnp.array([0.0, 1.0]), field)[-1]


ADAPTIVE = {"stepsize_controller": diffrax.PIDController(rtol=1e-4, atol=1e-4)}
SOLVERS: dict[str, Any] = {
    "Euler": ode(diffrax.Euler()),
    "Tsit5": ode(diffrax.Tsit5(), **ADAPTIVE),
    "BacksolveAdjoint": ode(diffrax.Tsit5(), adjoint=diffrax.BacksolveAdjoint(), **ADAPTIVE),
    "ForwardMode": ode(diffrax.Tsit5(), adjoint=diffrax.ForwardMode(), **ADAPTIVE),
    "root_find": root,
    "fixed_point": fixed,
    "linear_solve": linear,
    "odeint": by_odeint,
}


def made(host, field, solver, take=ox.snapshot):
    def run(y0, rate, offset):
        return ox.call_and_update(host(field(rate, offset, ZERO), SOLVERS[solver], take), y0)

    return run


def derived(run, solver, of=(0, 1, 2)):
    """`((y, new), derivatives of y)` of a function that returns `(y, new)`."""

    def with_value(*args):
        y, new = run(*args)
        return y, (y, new)

    if solver == "ForwardMode":
        slopes, result = jax.jit(jax.jacfwd(with_value, of, has_aux=True))(*START)
    else:
        (_, result), slopes = jax.jit(jax.value_and_grad(with_value, of, has_aux=True))(*START)
    return result, slopes


@functools.cache
def by_hand(solver):
    """The same of a function of the state."""

    def run(y0, rate, offset):
        return SOLVERS[solver](lambda y, p: p[1] - p[0] * y, (rate, offset), y0), None

    (y, _), slopes = derived(run, solver)
    return y, slopes


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("host", [Solve, SolveClosed])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_snapshot_is_right(solver, host):
    """With respect to inputs, params and state; nothing is written."""
    if host is SolveClosed and solver == "BacksolveAdjoint":
        pytest.skip("differentiated with respect to arguments alone")
    if host is Solve and solver == "odeint":
        pytest.skip("JAX's odeint takes no integers as arguments")
    (y, new), slopes = derived(made(host, Counting, solver), solver)
    close((y, *slopes), (by_hand(solver)[0], *by_hand(solver)[1]))
    assert (new.field.offset, new.field.calls) == (START[2], 0)


@pytest.mark.parametrize("solver", ["Euler", "Tsit5", "ForwardMode", "odeint"])
def test_a_live_module_counts_its_calls(solver):
    """With derivatives with respect to inputs and params."""
    (y, new), slopes = derived(made(SolveLive, Counting, solver), solver, (0, 1))
    close((y, *slopes), (by_hand(solver)[0], *by_hand(solver)[1][:2]))
    assert new.field.calls > 0 and new.field.offset == START[2]


@pytest.mark.parametrize("solver", ["BacksolveAdjoint", "root_find", "fixed_point"])
def test_a_live_module_counts_its_calls_where_nothing_is_differentiated(solver):
    y, new = jax.jit(made(SolveLive, Counting, solver))(*START)
    close(y, by_hand(solver)[0])
    assert new.field.calls > 0 and new.field.offset == START[2]


def test_a_live_module_in_a_linear_operator_is_refused():
    with pytest.raises(ox.EffectError, match=r"state 'field\.calls' is used inside .*linear_solve"):
        jax.jit(made(SolveLive, Counting, "linear_solve"))(*START)


@pytest.mark.parametrize("solver", ["Euler", "Tsit5", "root_find", "fixed_point", "odeint"])
def test_the_derivative_of_a_live_module_with_respect_to_state_is_refused(solver):
    with pytest.raises(ox.EffectError, match=r"state 'field\.offset' is (read|used) inside"):
        derived(made(SolveLive, Field, solver), solver, (2,))


@pytest.mark.parametrize("solver", ["root_find", "fixed_point"])
def test_the_implicit_derivative_of_a_live_module_is_refused(solver):
    with pytest.raises(ox.EffectError, match=r"state 'field\.offset' is used inside"):
        derived(made(SolveLive, Field, solver), solver, (0, 1))


def test_a_solver_without_a_rule_differentiates_through_state():
    (y, _), slopes = derived(made(SolveLive, Field, "ForwardMode"), "ForwardMode")
    close((y, *slopes), (by_hand("ForwardMode")[0], *by_hand("ForwardMode")[1]))
