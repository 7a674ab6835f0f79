"""Native gradients inside a call, of what is written and then read back (S9)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import Host, both, close, leaves_of
from jax import lax
from jax.custom_batching import custom_vmap
from threaded import BODIES, Times, hand_through, made, put, through

import oryxstate as ox

H = jnp.float32(0.3)
XS = np.array([1.0, 0.5, -1.0], np.float32)
S = leaves_of(BODIES["read and write h"])


def in_jit(m, x):
    jax.jit(put)(m, jnp.sin(x))
    return jax.jit(lambda: m.total**2)()


def in_jits_apart(m, x):
    jax.jit(lambda y: put(m, y))(jnp.sin(x))
    return m.total**2


def in_checkpoint(m, x):
    jax.checkpoint(put)(m, jnp.sin(x))
    return jax.checkpoint(lambda: m.total**2)()


def in_cond(m, x):
    lax.cond(x > 0, lambda: put(m, jnp.sin(x)), lambda: put(m, x))
    return m.total**2


def in_call(m, x):
    """Through the call of a submodule and of a value."""
    jax.tree.map(lambda v: v, m)(jnp.sin(x))
    return m.total**2


def in_custom_jvp(m, x):
    @jax.custom_jvp
    def write(x):
        put(m, jnp.sin(x))
        return x

    write.defjvp(lambda primals, tangents: (write(*primals), tangents[0]))
    return write(x) - x + m.total**2


def in_custom_vjp(m, x):
    def plain(x):
        put(m, jnp.sin(x))
        return x

    write = jax.custom_vjp(plain)
    write.defvjp(lambda x: (plain(x), None), lambda _, bar: (bar,))
    return write(x) - x + m.total**2


def in_vmap(m, x):
    jax.vmap(lambda _: put(m, jnp.sin(x)))(XS)
    return m.total**2


PATHS = {
    "directly": through,
    "jit": in_jit,
    "two jits": in_jits_apart,
    "checkpoint": in_checkpoint,
    "cond": in_cond,
    "call of a value": in_call,
    "custom_jvp": in_custom_jvp,
    "custom_vjp": in_custom_vjp,
    "vmap of what is equal": in_vmap,
}


def inside(derive, f):
    """`derive(x -> (y, new total))` by hand, or of the live module, eager and jitted."""
    host = Host(made(Times), lambda m, h: derive(lambda x: (f(m, x), m.total), h))
    want = derive(partial(hand_through, S[1]), H)
    return host, want


def gradient(f, h):
    return jax.grad(lambda x: f(x)[0])(h)


def aux(f, h):
    return jax.value_and_grad(f, has_aux=True)(h)


def pushed(f, h):
    return jax.jvp(f, (h,), (2 * h,))


def pulled(f, h):
    y, pull = jax.vjp(f, h)
    return y, pull((h, 2 * h))


def linear(f, h):
    y, push = jax.linearize(f, h)
    return y, push(h), push(2 * h)


def second(f, h):
    return jax.hessian(lambda x: f(x)[0])(h)


def forward_over_reverse(f, h):
    return jax.jvp(jax.grad(lambda x: f(x)[0]), (h,), (h,))


def reverse_over_forward(f, h):
    return jax.grad(lambda x: jax.jvp(f, (x,), (h,))[1][0])(h)


def of_jit(f, h):
    return jax.grad(jax.jit(lambda x: f(x)[0]))(h)


def of_checkpoint(f, h):
    return jax.grad(jax.checkpoint(lambda x: f(x)[0]))(h)


DERIVES = [gradient, aux, pushed, pulled, linear, of_jit, of_checkpoint]
TWICE = [second, forward_over_reverse, reverse_over_forward]
REFUSED_BY_JAX = [("custom_vjp", f) for f in (pushed, linear, reverse_over_forward)]
CASES = [(path, derive) for path in PATHS for derive in (*DERIVES, *TWICE)]


@pytest.mark.parametrize(("path", "derive"), [c for c in CASES if c not in REFUSED_BY_JAX])
def test_gradient_through_state(path, derive):
    host, want = inside(derive, PATHS[path])
    for run in both(ox.call_and_update):
        got, new = run(host, H)
        close(got, want)
        close(new.inner.total, hand_through(S[1], H)[1])


def pushed_in_vmap(f, x):
    """Tangents alone are mapped."""
    return jax.vmap(lambda t: jax.jvp(f, (x,), (t,)))(jnp.array([1.0, 2.0], x.dtype))


@pytest.mark.parametrize(
    "derive", [lambda f, x: jax.jacfwd(f)(x), pushed_in_vmap], ids=["jacfwd", "vmap of jvp"]
)
def test_a_rule_for_batches_is_differentiated_where_tangents_alone_are_mapped(derive):
    class Counter(ox.Module):
        scale: jax.Array = ox.state()

        def call(self, x):
            def run(x):
                y = jnp.sin(x) * self.scale
                self.assign(scale=self.scale + 1)
                return y

            function = custom_vmap(run)

            @function.def_vmap
            def _(axis_size, in_batched, x):
                return (jax.vmap(run)(x), True) if in_batched[0] else (run(x), False)

            return derive(function, x)

    model = Counter(jnp.float32(3))
    want = derive(lambda x: jnp.sin(x) * 3, H)
    for call in both(ox.call_and_update):
        for _ in range(2):
            y, new = call(model, H)
            close(y, want)
            assert new.scale == 4
