"""Stateful functions with a derivative of their own, staged and differentiated (S6, S9)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from custom_rules import BOTH, FORMS, STAGES, B, P, Q, T, gauge, slopes, vjp
from custom_rules import call_by_hand as called
from custom_rules import read_by_hand as read
from hosts import Host, both, close
from jax import lax

import oryxstate as ox

START = B, T, jnp.int32(0)


def both_patterns(form, stage, what):
    """Twice in one program, with the perturbed argument in either place: ours, and by hand."""
    wrap, hand = STAGES[stage]
    by_hand = hand(called if what == "call" else read)

    def program(m, pq):
        function = wrap(FORMS[form](m if what == "call" else m.read))
        return function(*pq) + function(*reversed(pq))

    def ours(p, q, t):
        y, new = ox.call_and_update(Host(gauge(B, t), program), (p, q))
        return y + new.inner.t**2, jax.tree.leaves(new)

    def theirs(p, q, t):
        y, s = by_hand((B, t, jnp.int32(0)), p, q)
        z, s = by_hand(s, q, p)
        return y + z + s[1] ** 2, list(s)

    return ours, theirs


SOME = "plain", "jit", "scan of checkpoint"
CASES = [
    (form, stage) for form in FORMS for stage in STAGES if stage in SOME or form in ("vjp", "jvp")
]


@pytest.mark.parametrize("what", ["call", "read"])
@pytest.mark.parametrize(("form", "stage"), CASES)
def test_two_patterns_of_perturbed_inputs(form, stage, what):
    ours, theirs = both_patterns(form, stage, what)
    for which in (0, 1, 2), (0,), (1,):
        derive = jax.value_and_grad(theirs, which, has_aux=True)
        want = derive(P, Q, T)
        for run in both(jax.value_and_grad(ours, which, has_aux=True))[which != (0, 1, 2) :]:
            close(run(P, Q, T), want)


def pushed(f):
    return lambda *args: jax.jvp(f, args, (Q, T, P), has_aux=True)


def second(f):
    return jax.hessian(lambda *args: f(*args)[0], (0, 1, 2))


def twice(f):
    return jax.grad(lambda *args: jax.grad(lambda *args: f(*args)[0], 1)(*args))


def mapped(f):
    gradient = jax.grad(lambda *args: f(*args)[0], (0, 1, 2))
    return lambda p, *rest: jax.vmap(lambda p: gradient(p, *rest))(jnp.stack([p, 2 * p]))


def forward(f):
    return jax.jacfwd(lambda *args: f(*args)[0], (0, 2))


FORWARD = [f.__name__ for f in BOTH]


@pytest.mark.parametrize("derive", [pushed, second, twice, mapped, forward])
@pytest.mark.parametrize(
    ("form", "stage"), [(f, s) for f in ("vjp", "jvp", "jvp_symbolic") for s in SOME]
)
def test_other_derivatives(form, stage, derive):
    if form in FORWARD or derive in (twice, mapped):
        ours, theirs = both_patterns(form, stage, "call")
        close(jax.jit(derive(ours))(P, Q, T), derive(theirs)(P, Q, T))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("form", ["vjp", "vjp_symbolic", "jvp"])
def test_derivative_with_respect_to_state_that_is_read_is_refused(form, stage):
    kind = "custom_vjp" if "vjp" in form else "custom_jvp"
    text = (
        f"state 'inner.b' is read inside `{kind}`, and a derivative .* says nothing. Hand the value"
    )

    def loss(b):
        return ox.call(Host(gauge(b), lambda m, pq: STAGES[stage][0](FORMS[form](m))(*pq)), (P, Q))

    for run in both(jax.grad(loss)):
        with pytest.raises(ox.EffectError, match=text):
            run(B)


def test_derivative_of_a_write_that_it_reads_is_refused_inside_a_call():
    def program(m, pq):
        def loss(p):
            m.assign(b=p)
            return vjp(m)(*pq)

        return jax.grad(loss)(pq[0])

    for run in both(ox.call):
        with pytest.raises(ox.EffectError, match="is read inside `custom_vjp`"):
            run(Host(gauge(), program), (P, Q))


@pytest.mark.parametrize("stage", ["plain", "jit", "checkpoint", "cond"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_module_among_the_residuals(stage, inside):
    """The backward pass reads it, and calls it: it starts from the state of the forward pass."""

    def function(m, p, q):
        run = jax.custom_vjp(lambda m, p, q: m(p, q))

        def backward(saved, bar):
            m, *pq = saved
            m(*pq)
            return None, *(bar * slope * m.b for slope in slopes(*pq))

        run.defvjp(lambda m, p, q: (m(p, q), (m, p, q)), backward)
        return STAGES[stage][0](lambda p, q: run(m, p, q))(p, q)

    def program(m, pq):
        def loss(p):
            return function(m, p, pq[1])

        return jax.grad(loss)(pq[0]) if inside else loss(pq[0])

    def root(p):
        return ox.call_and_update(Host(gauge(), program), (p, Q))

    for run in both(root if inside else jax.grad(root, has_aux=True)):
        got, new = run(P)
        close(got, slopes(P, Q)[0] * B)
        close(new.inner, called(START, P, Q)[1])


@pytest.mark.parametrize("stage", ["plain", "jit", "checkpoint", "cond"])
def test_integer_state_in_a_while_loop_inside(stage):
    """Which JAX cannot differentiate backwards, and need not."""

    def program(m, pq):
        def solve(p):
            def body(carry):
                m.assign(n=m.n + 1)
                return carry[0] + 1, carry[1] * m.b

            return lax.while_loop(lambda c: c[0] < 3, body, (0, p))[1]

        run = jax.custom_vjp(lambda p, q: solve(p))
        run.defvjp(lambda p, q: (solve(p), None), lambda _, bar: (7 * bar, None))
        return STAGES[stage][0](run)(*pq)

    def root(p):
        return ox.call_and_update(Host(gauge(), program), (p, Q))

    for run in both(jax.value_and_grad(root, has_aux=True)):
        (y, new), slope = run(P)
        close((y, slope, new.inner.n), (P * B**3, jnp.float32(7), jnp.int32(3)))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("form", ["vjp", "jvp"])
def test_in_an_initialized_function(form, stage):
    def function(p, q):
        ox.variable(T, name="t")

        def body(p, q):
            ox.assign(jnp.sin(p) * q, name="t")
            return p * p * q

        return STAGES[stage][0](FORMS[form](body))(p, q)

    def hand(s, p, q):
        rule = 3 * p * p * q
        return lax.stop_gradient(p * p * q - rule) + rule, (jnp.sin(p) * q,)

    module = ox.init(function)(jax.random.key(0), P, Q)

    def ours(p, q):
        y, new = ox.call_and_update(module, p, q)
        return y + new.t**2

    def theirs(p, q):
        y, (t,) = STAGES[stage][1](hand)((T,), p, q)
        return y + t**2

    for run in both(ours):
        close(jax.grad(run, (0, 1))(P, Q), jax.grad(theirs, (0, 1))(P, Q))
