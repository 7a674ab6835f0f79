"""Functions with a rule of their own whose derivative would be wrong are refused it (S6, S9)."""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental.ode import odeint

import oryxstate as ox


class Total(ox.Module):
    total: jax.Array = ox.state()
    count: jax.Array = ox.state()

    def call(self, x):
        self.assign(total=self.total + x, count=self.count + 1)
        return self.total


class Calls(Total):
    def call(self, x):
        self.assign(count=self.count + 1)
        return x


def checkpointed(inner, x):
    def body(c):
        return c[0] + 1, inner(c[1])

    return eqxi.while_loop(lambda c: c[0] < 3, body, (0, x), max_steps=3, kind="checkpointed")[1]


def ordinary(inner, x):
    return odeint(lambda y, t: inner(y), x, jnp.array([0.0, 1.0]))[-1]


def scanned(inner, x):
    def run(x):
        return lax.scan(lambda c, _: (inner(c), None), x, None, length=3)[0]

    function = jax.custom_vjp(run)
    function.defvjp(lambda x: (run(x), None), lambda _, bar: (bar,))
    return jax.jit(function)(x)


class Loop(ox.Module):
    inner: Total
    run: object = ox.static()

    def call(self, x):
        return self.run(self.inner, x)


LOOPS = [checkpointed, ordinary, scanned]


def loop(kind, run):
    return Loop(kind(jnp.float32(1), jnp.int32(0)), run)


@pytest.mark.parametrize("run", LOOPS)
def test_state_that_a_loop_takes_on_and_the_output_depends_on(run):
    for transform in (lambda f: f, jax.jit):
        value = transform(lambda x: ox.call(loop(Total, run), x))
        with pytest.raises(ox.EffectError, match=r"'inner\.total' is read and written by a loop"):
            transform(jax.grad(value))(jnp.float32(0.5))


@pytest.mark.parametrize("run", LOOPS)
def test_a_counter_in_a_loop(run):
    for transform in (lambda f: f, jax.jit):
        gradient = transform(
            jax.grad(lambda x: ox.call_and_update(loop(Calls, run), x), has_aux=True)
        )
        slope, new = gradient(jnp.float32(0.5))
        assert jnp.isfinite(slope) and new.inner.count >= 3


class Ruled(ox.Module):
    """Writes in a function whose rule gives this cotangent."""

    total: jax.Array = ox.state()
    rule: object = ox.static()

    def call(self, x):
        @jax.custom_vjp
        def function(x, flag):
            self.assign(total=self.total + x)
            return x * 2

        function.defvjp(lambda x, flag: (x * 2, None), lambda _, bar: (self.rule(bar), None))
        return function(x, True)  # a Python scalar among the arguments, as solvers have


@pytest.mark.parametrize(("rule", "slope"), [(lambda bar: None, 0), (lambda bar: 5 * bar, 5)])
def test_the_new_state_keeps_its_derivative(rule, slope):
    def run(x):
        y, new = ox.call_and_update(Ruled(jnp.float32(1), rule), x)
        return y + 3 * new.total

    for transform in (lambda f: f, jax.jit):
        assert transform(jax.grad(run))(jnp.float32(2)) == slope + 3
