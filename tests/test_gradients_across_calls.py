"""Derivatives through state that is threaded from root call to root call (S9)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from cells import Cell, Copying, Explicit, Foreign, H, Outer, Rule, W, X, function, step
from hosts import both, close
from jax import lax

import oryxstate as ox

SCALES = jnp.array([1.0, 0.5, -1.0], jnp.float32)


def by_hand(w, h, x):
    total = jnp.float32(0)
    for scale in SCALES:
        y, h = step(w, h, x * scale)
        total = total + y
    return total + h**2


def output(out: Any) -> Any:
    (y,) = jax.tree.leaves(out)
    return y


def state(model: Any) -> Any:
    """The one leaf that is called `h`."""
    (h,) = (leaf for path, leaf in ox.named_leaves(model).items() if path.strip("']")[-1] == "h")
    return h


# Ways to thread three calls: `(model, x) -> (sum of outputs, model)` ------------------------------


def in_python(m, x):
    total = jnp.float32(0)
    for scale in SCALES:
        y, m = ox.call_and_update(m, x * scale)
        total = total + output(y)
    return total, m


def in_two_parts(m, x):
    """`call` and `update` apart."""
    total = jnp.float32(0)
    for scale in SCALES:
        total = total + output(ox.call(m, x * scale))
        m = ox.update(m, x * scale)
    return total, m


def turn(carry, x):
    m, total = carry
    y, m = ox.call_and_update(m, x)
    return (m, total + output(y)), None


def in_scan(m, x, body=turn, **options):
    m, total = lax.scan(body, (m, jnp.float32(0)), x * SCALES, **options)[0]
    return total, m


def in_scan_of_remat(m, x):
    return in_scan(m, x, jax.checkpoint(turn))


def in_scan_of_jit(m, x):
    return in_scan(m, x, jax.jit(turn))


def in_scan_unrolled(m, x):
    return in_scan(m, x, unroll=2)


def in_fori_loop(m, x):
    m, total = lax.fori_loop(0, 3, lambda i, c: turn(c, x * SCALES[i])[0], (m, jnp.float32(0)))
    return total, m


def in_while_loop(m, x):
    def body(carry):
        i, *rest = carry
        return i + 1, *turn(tuple(rest), x * SCALES[i])[0]

    _, m, total = lax.while_loop(lambda c: c[0] < 3, body, (0, m, jnp.float32(0)))
    return total, m


def wrapped(wrap):
    def run(m, x):
        call, total = wrap(ox.call_and_update), jnp.float32(0)
        for scale in SCALES:
            y, m = call(m, x * scale)
            total = total + output(y)
        return total, m

    return run


def in_cond(m, x):
    def call(m, x):
        return lax.cond(x > 5, lambda m, x: ox.call_and_update(m, 2 * x), ox.call_and_update, m, x)

    return wrapped(lambda _: call)(m, x)


def in_vmap(m, x):
    """Each of two equal examples threads its own model."""
    totals, ms = jax.vmap(in_python, (None, 0))(m, x * jnp.ones(2))
    return totals.mean(), jax.tree.map(lambda leaf: leaf[0], ms)


WAYS = {
    "python": in_python,
    "call and update": in_two_parts,
    "scan": in_scan,
    "scan unrolled": in_scan_unrolled,
    "scan of checkpoint": in_scan_of_remat,
    "scan of jit": in_scan_of_jit,
    "fori_loop": in_fori_loop,
    "while_loop": in_while_loop,
    "jit": wrapped(jax.jit),
    "filter_jit": wrapped(eqx.filter_jit),
    "checkpoint": wrapped(jax.checkpoint),
    "nothing saved": wrapped(
        lambda f: jax.checkpoint(f, policy=jax.checkpoint_policies.nothing_saveable)
    ),
    "cond": in_cond,
    "vmap": in_vmap,
}
MODELS = {
    "call": Cell,
    "call_and_update": Rule,
    "function": function,
    "inside": lambda w, h: Outer(Cell(w, h)),
    "explicit": lambda w, h: Explicit(Cell(w, h)),
    "explicit rule": lambda w, h: Explicit(Rule(w, h)),
    "copying": Copying,
    "list": lambda w, h: [Cell(w, h)],
    "tuple": lambda w, h: (Rule(w, h),),
    "dict": lambda w, h: {"a": Cell(w, h)},
    "Equinox": lambda w, h: Foreign(Cell(w, h)),
    "in Equinox in ours": lambda w, h: Outer(Foreign(Cell(w, h))),
}


def grad(f):
    return jax.value_and_grad(f, (0, 1, 2))(W, H, X)


def pushed(f):
    return jax.jvp(f, (W, H, X), (X, W, H))


def second(f):
    return jax.hessian(f, (0, 1, 2))(W, H, X)


def check(make, way, derive):
    def ours(w, h, x):
        total, m = way(make(w, h), x)
        return total + state(m) ** 2

    want = derive(by_hand)
    close(jax.jit(lambda: derive(ours))(), want)
    if derive is not second:  # which takes long to run operation by operation
        close(derive(ours), want)
        close(derive(jax.jit(ours)), want)


@pytest.mark.parametrize("derive", [grad, pushed, second])
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_thread(way, derive):
    if way != "while_loop" or derive is pushed:
        check(Cell, WAYS[way], derive)


@pytest.mark.parametrize("way", ["python", "scan of checkpoint"])
@pytest.mark.parametrize("model", MODELS)
def test_models(model, way):
    for derive in grad, pushed:
        check(MODELS[model], WAYS[way], derive)


def test_gradient_with_respect_to_state_alone():
    def loss(h):
        return in_scan(Outer(Cell(W, h)), X)[0]

    want = jax.grad(lambda h: by_hand(W, h, X) - in_scan(Cell(W, h), X)[1].h ** 2)(H)
    for f in both(jax.grad(loss)):
        close(f(H), want)


def test_grad_leaves_state_out():
    def loss(model, x):
        y, model = in_python(model, x)
        return y + model.cell.h**2, model

    want = jax.grad(by_hand)(W, H, X)
    for f in both(ox.grad(loss, has_aux=True)):
        gradient, new = f(Outer(Cell(W, H)), X)
        close(gradient.cell.w, want)
        assert gradient.cell.h is None
        close(new, in_python(Outer(Cell(W, H)), X)[1])
