"""Transformations that differentiate or say how to, each with its meaning by hand."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from rows import JVP, VJP, Row

ROWS: dict[str, Row] = {}

V = jnp.array([1.0, 0.5])
POLICIES = jax.checkpoint_policies


def derived(ours, hand, modes=JVP | VJP, needs=VJP):
    """`ours(g, h)` derives `g: h -> scalar`; `hand(g, h)` does with `g: h -> (scalar, leaves)`."""

    def transformed(f):
        return lambda m, h: ours(lambda h: f.step(m, h), h)

    return Row(
        transformed,
        lambda f: lambda s, h: hand(lambda h: f.hand(s, h), h),
        modes=modes,
        needs=needs,
    )


def second(f):
    """With the module as an argument beside the one that is differentiated."""
    return lambda m, h: jax.grad(f.step, argnums=1)(m, h)


def hand_grad(g, h):
    return jax.grad(g, has_aux=True)(h)


def with_aux(g, h):
    def loss(h):
        y = g(h)
        return y, 2 * y

    (y, aux), slope = jax.value_and_grad(loss, has_aux=True)(h)
    return y + aux + slope


def hand_value_and_grad(g, h):
    (y, s), slope = jax.value_and_grad(g, has_aux=True)(h)
    return 3 * y + slope, s


def jvp(g, h):
    y, dot = jax.jvp(g, (h,), (2 * h,))
    return y + dot


def hand_jvp(g, h):
    y, dot, s = jax.jvp(g, (h,), (2 * h,), has_aux=True)
    return y + dot, s


def vjp(g, h):
    y, pull = jax.vjp(g, h)
    return y + pull(2 * h)[0] + pull(y)[0]


def hand_vjp(g, h):
    y, pull, s = jax.vjp(g, h, has_aux=True)
    return y + pull(2 * h)[0] + pull(y)[0], s


def linearize(g, h):
    y, push = jax.linearize(g, h)
    return y + push(2 * h) + push(y)


def hand_linearize(g, h):
    y, push, s = jax.linearize(g, h, has_aux=True)
    return y + push(2 * h) + push(y), s


def jacobian(transform):
    def ours(g, h):
        return (transform(lambda v: v * g(v.sum()))(h * V) * jnp.arange(4.0).reshape(2, 2)).sum()

    def hand(g, h):
        def both(v):
            y, s = g(v.sum())
            return v * y, s

        jac, s = transform(both, has_aux=True)(h * V)
        return (jac * jnp.arange(4.0).reshape(2, 2)).sum(), s

    return ours, hand


def hessian(g, h):
    return (jax.hessian(lambda v: g(v[0] * v[1]))(h * V) * jnp.arange(4.0).reshape(2, 2)).sum()


def hand_hessian(g, h):
    hess, s = jax.hessian(lambda v: g(v[0] * v[1]), has_aux=True)(h * V)
    return (hess * jnp.arange(4.0).reshape(2, 2)).sum(), s


def remat_grad(policy):
    return Row(
        lambda f: jax.grad(jax.checkpoint(f.step, policy=policy), argnums=1),
        lambda f: lambda s, h: hand_grad(lambda h: f.hand(s, h), h),
        needs=VJP,
    )


def named(f):
    def run(m, h):
        return checkpoint_name(f.step(m, h), "named") * h

    return jax.grad(jax.checkpoint(run, policy=POLICIES.save_only_these_names("named")), argnums=1)


def hand_named(f):
    def run(s, h):
        y, s = f.hand(s, h)
        return y * h, s

    return lambda s, h: hand_grad(lambda h: run(s, h), h)


def custom_jvp(f):
    @jax.custom_jvp
    def run(m, h):
        return f.step(m, h)

    @run.defjvp
    def _(primals, tangents):
        return f.step(*primals), 3 * tangents[1]  # not the derivative, so that one sees it is used

    return run


def custom_vjp(f):
    @jax.custom_vjp
    def run(m, h):
        return f.step(m, h)

    def forward(m, h):
        return f.step(m, h), h

    def backward(h, bar):
        return None, 3 * bar * jnp.cos(h)

    run.defvjp(forward, backward)
    return run


def ruled(rule, y, s):
    """The output `y` has the user's derivative, the new state its own."""
    return rule - lax.stop_gradient(rule) + lax.stop_gradient(y), s


def hand_custom_jvp(f):
    return lambda s, h: ruled(3 * h, *f.hand(s, h))


def hand_custom_vjp(f):
    return lambda s, h: ruled(3 * jnp.sin(h), *f.hand(s, h))


def custom_root(f):
    def run(m, h):
        return lax.custom_root(
            lambda z: z - f.step(m, h),
            jnp.float32(0),
            lambda g, z: z - g(z),  # writes once: JAX runs this, and stages the rest
            lambda g, y: y / g(jnp.float32(1)),
        )

    return run


def custom_linear_solve(f):
    def run(m, h):
        def solve(_, b):
            x = b / (1 + f.peek(m) ** 2)
            f.step(m, h)
            return x

        return lax.custom_linear_solve(
            lambda z: (1 + f.peek(m) ** 2) * z, h, solve, transpose_solve=solve, symmetric=True
        )

    return run


def hand_linear_solve(f):
    return lambda s, h: (h / (1 + f.hand_peek(s) ** 2), f.hand(s, h)[1])


ROWS["checkpoint"] = Row(lambda f: jax.checkpoint(f.step))
ROWS["filter_checkpoint"] = Row(lambda f: eqx.filter_checkpoint(f.step))
ROWS["grad of checkpoint"] = remat_grad(None)
ROWS["grad of checkpoint, nothing saved"] = remat_grad(POLICIES.nothing_saveable)
ROWS["grad of checkpoint, everything saved"] = remat_grad(POLICIES.everything_saveable)
ROWS["grad of checkpoint, dots saved"] = remat_grad(POLICIES.dots_saveable)
ROWS["grad of checkpoint, names saved"] = Row(named, hand_named, needs=VJP)
ROWS["grad"] = Row(second, derived(None, hand_grad).hand, needs=VJP)
ROWS["filter_grad"] = derived(lambda g, h: eqx.filter_grad(g)(h), hand_grad)
ROWS["value_and_grad with aux"] = derived(with_aux, hand_value_and_grad)
ROWS["jvp"] = derived(jvp, hand_jvp, needs=JVP)
ROWS["vjp"] = derived(vjp, hand_vjp)
ROWS["linearize"] = derived(linearize, hand_linearize, needs=JVP)
ROWS["jacfwd"] = derived(*jacobian(jax.jacfwd), needs=JVP)
ROWS["jacrev"] = derived(*jacobian(jax.jacrev))
ROWS["hessian"] = derived(hessian, hand_hessian, needs=JVP | VJP)
ROWS["custom_jvp"] = Row(custom_jvp, hand_custom_jvp)
ROWS["custom_vjp"] = Row(custom_vjp, hand_custom_vjp, modes=VJP)
ROWS["custom_root"] = Row(custom_root, modes=frozenset(), needs=JVP)
ROWS["custom_linear_solve"] = Row(custom_linear_solve, hand_linear_solve)
