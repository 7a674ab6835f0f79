"""Members of a module that is mapped inside a call, each with its own update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from hosts import Host, both, close
from jax import lax
from threaded import Acc, made, stacked

import oryxstate as ox

WITHIN = {
    "jit": lambda m, x: jax.jit(lambda x: m(x))(x),
    "jit with argument": lambda m, x: jax.jit(lambda m, x: m(x))(m, x),
    "checkpoint": lambda m, x: jax.checkpoint(lambda x: m(x))(x),
    "scan": lambda m, x: lax.scan(lambda c, _: (m(c), None), x, None, length=2)[0],
    "scan with carry": lambda m, x: lax.scan(
        lambda c, _: ((c[0], c[0](c[1])), None), (m, x), None, length=2
    )[0][1],
    "fori_loop": lambda m, x: lax.fori_loop(0, 2, lambda i, c: m(c), x),
    "while_loop": lambda m, x: lax.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, m(c[1])), (0, x)
    )[1],
    "cond": lambda m, x: lax.cond(x > 0, lambda x: m(x), lambda x: x, x),
    "cond with argument": lambda m, x: lax.cond(x > 0, lambda m, x: m(x), lambda m, x: x, m, x),
}
XS = jnp.array([0.5, -0.25, 1.0])


@pytest.mark.parametrize("name", WITHIN)
def test_each_member_is_as_if_it_were_alone(name):
    members = [made(Acc, total, 0.5, count) for total, count in ((1.0, 0), (-2.0, 3), (0.5, 5))]
    alone = [
        ox.call_and_update(Host(member, WITHIN[name]), x)
        for member, x in zip(members, XS, strict=True)
    ]
    ys, ends = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    host = Host(stacked(*members), lambda m, xs: jax.vmap(WITHIN[name])(m, xs))
    for run in both(ox.call_and_update):
        for _ in range(2):
            got, new = run(host, XS)
            close((got, new.inner), (ys, ends.inner))
