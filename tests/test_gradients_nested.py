"""Native gradients inside a call, within loops and other gradients (S9)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hosts import Host, both, close, leaves_of
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad
from jaxtyping import Array
from threaded import BODIES, Times, hand_through, made, put, through

import oryxstate as ox

H = jnp.float32(0.3)
XS = np.array([1.0, 0.5, -1.0], np.float32)
S = leaves_of(BODIES["read and write h"])


def steps(step, x, count=3):
    return lax.scan(lambda c, _: (step(c), c), x, None, length=count)


def test_scan_carries_the_gradient():
    """An RNN learns through its own hidden state."""

    class Recurrent(ox.Module):
        weight: Array = ox.param()
        hidden: Array = ox.state()

        def call(self, x):
            self.assign(hidden=jnp.tanh(self.weight * self.hidden + x))
            return self.hidden

    def losses(weight, x):
        hidden, total = jnp.float32(0.5), jnp.float32(0)
        for v in XS:
            hidden = jnp.tanh(weight * hidden + x * v)
            total += hidden
        return total

    def native(m, h):
        def loss(weight, x):
            return lax.scan(lambda c, v: (c, m.replace(weight=weight)(x * v)), 0, XS)[1].sum()

        return jax.grad(loss, argnums=(0, 1))(m.weight, h)

    rnn = Recurrent(jnp.float32(0.7), jnp.float32(0.5))
    want = jax.grad(losses, argnums=(0, 1))(rnn.weight, H)
    for run in both(ox.call):
        close(run(Host(rnn, native), H), want)

    def whole(m, h):
        return lax.scan(lambda c, v: (c, m(h * v)), 0, XS)[1].sum()

    for run in both(ox.grad(ox.call)):
        close(run(Host(rnn, whole), H).inner.weight, want[0])


def test_two_gradients_in_a_row():
    """The second starts from what the first left, as a constant."""

    def step(m, h):
        return jax.grad(lambda x: through(m, x))(h), jax.grad(lambda x: through(m, x))(2 * h)

    first, total = jax.grad(partial(hand_through, S[1]), has_aux=True)(H)
    second, total = jax.grad(partial(hand_through, total), has_aux=True)(2 * H)
    for run in both(ox.call_and_update):
        got, new = run(Host(made(Times), step), H)
        close(got, (first, second))
        close(new.inner.total, total)


def test_gradient_inside_a_gradient():
    """The state that the inner one leaves depends on what the outer one differentiates."""

    def step(m, h):
        def outer(x):
            slope = jax.grad(lambda y: through(m, x * y))(x)
            return slope * through(m, x) + m.total

        return jax.grad(outer)(h)

    def by_hand(x):
        slope, total = jax.grad(lambda y: hand_through(S[1], x * y), has_aux=True)(x)
        y, total = hand_through(total, x)
        return slope * y + total

    for run in both(ox.call):
        close(run(Host(made(Times), step), H), jax.grad(by_hand)(H))


def test_gradient_in_a_scan_and_of_it():
    def step(m, h):
        inner = steps(lambda c: jax.grad(lambda x: through(m, x))(c), h)[1]
        outer = jax.grad(lambda x: steps(lambda c: through(m, c) + c, x)[0])(h)
        return inner, outer

    def by_hand(total, x):
        c, cs = x, []
        for _ in range(3):
            cs.append(c)
            c, total = jax.grad(partial(hand_through, total), has_aux=True)(c)

        def loss(x, total=total):
            for _ in range(3):
                y, total = hand_through(total, x)
                x = y + x
            return x

        return jnp.stack(cs), jax.grad(loss)(x)

    for run in both(ox.call):
        close(run(Host(made(Times), step), H), by_hand(S[1], H))


def test_vmap_of_gradient():
    """Of a mapped module, so that each member keeps its own."""

    def step(m, h):
        return jax.vmap(lambda m, x: jax.grad(lambda x: through(m, x))(x))(m, h * XS)

    members = jax.tree.map(lambda x: x * jnp.arange(1, 4, dtype=x.dtype), made(Times))
    ends = [
        jax.grad(partial(hand_through, t), has_aux=True)(H * x)
        for t, x in zip(members.total, XS, strict=True)
    ]
    for run in both(ox.call_and_update):
        got, new = run(Host(members, step), H)
        close(got, jnp.stack([g for g, _ in ends]))
        close(new.inner.total, jnp.stack([t for _, t in ends]))


def test_write_below_a_gradient_ends_the_tangent():
    """What was overwritten or stopped carries no derivative; what was read before does."""

    def step(m, h):
        def loss(x):
            m.assign(total=x)
            before = m.total
            m.assign(total=h)
            after = m.total * x
            m.assign(total=lax.stop_gradient(x))
            return before**2 + after + m.total

        return jax.grad(loss)(h)

    for run in both(ox.call):
        close(run(Host(made(Times), step), H), 2 * H + H)


class Closure(ox.Module):
    """A root of its own that runs any function."""

    count: jax.Array = ox.state()

    def call(self, function, x):
        return function(x)


def test_a_root_call_inside_a_gradient_keeps_the_tangent():
    """Of what it writes in the root around it."""

    def step(m, h):
        inner = Closure(jnp.int32(0))

        def loss(x):
            inner.call_and_update(lambda x: put(m, jnp.sin(x)), x)
            return inner.call(lambda x: m.total**2 * x, x)

        return jax.grad(loss)(h)

    for run in both(ox.call_and_update):
        got, new = run(Host(made(Times), step), H)
        total = S[1] * jnp.sin(H)
        close(got, total**2 + 2 * total * S[1] * jnp.cos(H) * H)
        close(new.inner.total, total)


BELOW = Primitive("below")
BELOW.def_impl(lambda x, write: write(x))
BELOW.def_abstract_eval(lambda x, write: x)


def _below_jvp(primals, tangents, write):
    """It writes as what runs below the derivative, where that does not see it."""
    return write(*primals), tangents[0]


ad.primitive_jvps[BELOW] = _below_jvp


def test_what_was_written_below_a_derivative_is_read_in_it():
    """Not what the derivative itself wrote before."""

    def step(m, h):
        def loss(x):
            m.assign(total=x)
            y = BELOW.bind(x, write=lambda x: (m.assign(total=5 * x), x)[1])
            return y + m.total

        return jax.value_and_grad(loss)(h)

    for run in both(ox.call_and_update)[:1]:
        (y, slope), new = run(Host(made(Times), step), H)
        close((y, slope, new.inner.total), (6 * H, jnp.float32(1), 5 * H))


def test_what_is_written_before_it_is_read_is_no_constant():
    def step(m, h):
        m.assign(total=jnp.sin(h))
        return m.total**2

    host, want = Host(made(Times), step), (jnp.sin(H) ** 2, 2 * jnp.sin(H) * jnp.cos(H))
    for run in both(jax.value_and_grad(ox.call, 1)):
        close(run(host, H), want)


def test_state_that_enters_is_a_constant():
    """Also with respect to the module itself, as an argument of `jax.grad` inside the call."""

    def step(m, h):
        return jax.grad(lambda m: through(m, h) * m.scale, allow_int=True)(m).scale

    for run in both(ox.call):
        close(run(Host(made(Times), step), H), hand_through(S[1], H)[0])
