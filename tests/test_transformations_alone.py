"""Cases of transformations that no row of the table covers (S6)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hosts import START, Host, both, close, leaves_of
from jax import lax
from threaded import BODIES, Acc, acc, made, stacked
from transformations import ROWS

import oryxstate as ox


def branches(pair, h):
    """Each branch writes something else."""
    a, b = pair
    return lax.switch(
        h.astype(jnp.int32),
        [lambda: a(h), lambda: (b.assign(count=7), h)[1], lambda: a(b(h)), lambda: a.total],
    )


def hand_branches(a, b, h):
    ha, a1 = acc(a, h)
    hb, b1 = acc(b, h)
    hab, a2 = acc(a, hb)
    ends = [(ha, a1, b), (h, a, (*b[:2], jnp.int32(7))), (hab, a2, b1), (a[1], a, b)]
    return ends[int(h)]


def test_branches_that_write_different_state():
    pair = [made(Acc), made(Acc, 0.75, -0.5, 9)]
    a, b = (tuple(jax.tree.leaves(m)) for m in pair)
    host, hs = Host(pair, branches), jnp.arange(4.0)
    ends = [hand_branches(a, b, h) for h in hs]
    for run in both(ox.call_and_update):
        for h, end in zip(hs, ends, strict=True):
            close(run(host, h), end)
    for run in both(jax.vmap(ox.call_and_update, (None, 0))):
        close(run(host, hs), stacked(*ends))


@pytest.mark.parametrize("body", ["read", "write", "write h"])
def test_root_solve_is_differentiated(body):
    """A residual that reads no value which it wrote."""
    f = ROWS["custom_root"].body(BODIES[body])
    host, s, h = Host(f.make(), f.step), leaves_of(f), jnp.float32(0.3)
    for run in both(lambda m, h: jax.value_and_grad(ox.call_and_update, 1, has_aux=True)(m, h)):
        (y, new), slope = run(host, h)
        close((y, new, slope), (*f.hand(s, h), jax.grad(f.hand, 1, has_aux=True)(s, h)[0]))


@pytest.mark.parametrize("body", ["count", "read and write h", "rule", "called twice"])
def test_root_solve_that_reads_and_writes_is_not_differentiated(body):
    """The derivative would be taken at the state that the solve left."""
    f = ROWS["custom_root"].body(BODIES[body])
    host, s, h = Host(f.make(), f.step), leaves_of(f), jnp.float32(0.3)
    for run in both(jax.value_and_grad(ox.call_and_update, 1, has_aux=True)):
        with pytest.raises(ox.EffectError, match=r"written inside `lax\.custom_root`"):
            run(host, h)
    for run in both(ox.call_and_update):
        close(run(host, h), f.hand(s, h))


def test_custom_vmap_under_a_mapped_root():
    """The user's rule where it needs to know of no state of one example, otherwise refused."""
    hs = jnp.array([0.3, -0.7])
    for body, name in ((BODIES[name], name) for name in ("read", "count", "write h")):
        host, s = Host(body.make(), ROWS["custom_vmap"].body(body).step), leaves_of(body)
        ends = [body.hand(s, h) for h in hs]
        for run in both(jax.vmap(ox.call_and_update, (None, 0))):
            if name == "write h":
                with pytest.raises(ox.EffectError, match="depends on the mapped axis"):
                    run(host, hs)
            else:
                y, new = run(host, hs)
                close(
                    (y, new), (stacked(*(2 * y for y, _ in ends)), stacked(*(s for _, s in ends)))
                )


def test_custom_vmap_of_mapped_state():
    """The user's rule knows of no mapped state: the function itself is mapped."""
    body, hs = BODIES["read and write h"], jnp.array([0.3, -0.7])
    host, s = Host(body.make(), ROWS["custom_vmap"].body(body).step), leaves_of(body)
    hosts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), host)
    ends = [body.hand(s, h) for h in hs]
    for run in both(jax.vmap(ox.call_and_update)):
        close(run(hosts, hs), stacked(*ends))


def test_equinox_errors_inside_a_call():
    def step(m, h):
        return eqx.error_if(m(h), m() > 100, "too large")

    for run in both(ox.call_and_update):
        close(run(Host(made(Acc), step), jnp.float32(0.3)), acc(START, jnp.float32(0.3)))


def test_programs_inside_a_call_can_be_printed():
    def step(m, h):
        text = str(jax.make_jaxpr(m)(h))
        assert "variable" in text and "assign" in text
        return h

    for run in both(ox.call):
        close(run(Host(made(Acc), step), jnp.float32(0.3)), jnp.float32(0.3))


def test_state_is_no_constant_of_a_loop():
    """Under `ensure_compile_time_eval` too: its body would be evaluated once, when it is staged."""

    def step(m, h):
        def turn(c, _):
            with jax.ensure_compile_time_eval():
                m.assign(total=m() + 1.0)
                return c * m(), None

        return lax.scan(turn, h, None, length=3)[0]

    for run in both(ox.call_and_update):
        y, new = run(Host(made(Acc), step), jnp.float32(2))
        close((y, new.inner.total), (jnp.float32(2 * 1.25 * 2.25 * 3.25), jnp.float32(3.25)))


def test_state_is_no_constant_of_a_program():
    """Under `ensure_compile_time_eval` too: a cached program would hold the value of one call."""

    @jax.jit
    def folded(m, h):
        with jax.ensure_compile_time_eval():
            m.assign(total=m() + 1.0)
            return h * m()

    for run in both(ox.call_and_update):
        host, h = Host(made(Acc), folded), jnp.float32(2)
        for total in (jnp.float32(1.25), jnp.float32(2.25)):
            y, host = run(host, h)
            close((y, host.inner.total), (h * total, total))


@pytest.mark.parametrize("rule", ["custom_jvp", "custom_vjp", "custom_linear_solve"])
def test_custom_rules_in_a_vmap_that_maps_nothing(rule):
    """They pass by the inner `vmap`, and what evaluates them meets no trace but their own."""
    f = ROWS["vmap of what does not depend on the axis"].body(ROWS[rule].body(BODIES["count"]))
    host, s, hs = Host(f.make(), f.step), leaves_of(f), jnp.array([0.3, -0.7])
    ends = [f.hand(s, h) for h in hs]
    for run in both(ox.call_and_update):
        close(run(host, hs[0]), ends[0])
    for run in both(jax.vmap(ox.call_and_update, (None, 0))):
        close(run(host, hs), stacked(*ends))
