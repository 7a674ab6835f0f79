"""Stateful functions with a derivative of their own under `vmap`, differentiated (S6, S9)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from custom_rules import B, Gauge, P, Q, T, gauge, slopes
from custom_rules import call_by_hand as called
from hosts import Host, both, close

import oryxstate as ox


@pytest.mark.parametrize("how", ["argument", "closed over"])
def test_a_mapped_member(how):
    """Of an ensemble, each with a rule of its own."""

    def one(m, p):
        run = jax.custom_vjp(lambda p, m: m(p, Q))
        run.defvjp(lambda p, m: (m(p, Q), p), lambda p, bar: (bar * slopes(p, Q)[0], None))
        if how == "argument":
            return run(p, m)
        run = jax.custom_vjp(lambda p: m(p, Q))
        run.defvjp(lambda p: (m(p, Q), p), lambda p, bar: (bar * slopes(p, Q)[0],))
        return run(p)

    ps, ts = jnp.stack([P, 2 * P]), jnp.stack([T, -T])

    def ours(ps, ts):
        members = Gauge(jnp.stack([B, B]), ts, jnp.arange(2))
        y, new = ox.call_and_update(Host(members, lambda m, ps: jax.vmap(one)(m, ps)), ps)
        return y.sum() + (new.inner.t**2).sum()

    def theirs(ps, ts):
        y, s = called((B, ts, jnp.arange(2)), ps, Q)
        return y.sum() + (s[1] ** 2).sum()

    # JAX has no derivative of a rule that closes over what is mapped.
    derive = jax.grad if how == "argument" else lambda f, _: f
    for run in both(derive(ours, (0, 1))):
        close(run(ps, ts), derive(theirs, (0, 1))(ps, ts))


@pytest.mark.parametrize("inside", [False, True])
def test_examples_share_a_write_that_does_not_depend_on_them(inside):
    def mapped(m, ps):
        def one(p):
            def count(p):
                m.assign(n=m.n + 1)
                return p * p

            run = jax.custom_vjp(count)
            run.defvjp(lambda p: (count(p), p), lambda p, bar: (3 * p * bar,))
            return run(p)

        return jax.vmap(one)(ps).sum()

    ps = jnp.stack([P, Q])
    program = jax.grad(mapped, 1) if inside else mapped

    def root(ps):
        return ox.call_and_update(Host(gauge(), program), ps)

    for run in both(root if inside else jax.grad(root, has_aux=True)):
        got, new = run(ps)
        close((got, new.inner.n), (3 * ps, jnp.int32(1)))
