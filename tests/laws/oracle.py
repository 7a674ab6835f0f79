"""What does a program compute? Python loops, the state threaded by hand, and no cache anywhere.

The one transformation used is `jax.jvp`, on pure functions; a reverse derivative of a function of a
scalar is its forward derivative.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from laws.programs import Cell, Ensemble, Plain, Two

SHIFTS = jnp.array([0.0, 0.5, -0.25])
SLOPE = 1.5  # what custom derivatives multiply the tangent with


class MappedWriteError(Exception):
    """Examples of a `vmap` leave a cell that is not mapped with different states."""


def plain(kind, x):
    """A function without state."""
    if kind == "sin":
        return jnp.sin(x)
    return 0.5 * x + 0.25 if kind == "affine" else 0.1 * x * x


def step(kind, s, x):
    """One step of a cell: `(output, new state)`."""
    if kind == "count":
        return x + 0.01 * s, s + 1.0
    if kind == "write":
        return x, 0.3 * jnp.sin(x)
    if kind == "accumulate":
        new = 0.5 * s + 0.25 * x
        return x + new, new
    if kind == "mean":
        return 0.5 * x, 0.9 * s + 0.1 * x
    return x + 0.1 * s, s


def run(node, state, x):
    """Run a program: `(output, new state)`; the state is `(cells, ensemble)`."""
    if isinstance(node, Plain):
        return plain(node.kind, x), state
    if isinstance(node, Cell):
        return _cell(node, state, x)
    if isinstance(node, Ensemble):
        ys, new = step(node.kind, state[1], x + SHIFTS)
        return ys.mean(), (state[0], new)
    if isinstance(node, Two):
        return _two(node, state, x)
    return _within(node, state, x)


def _cell(node, state, x):
    cells, ensemble = state
    s = cells[node.index]
    if node.kind in ("twice", "recur"):
        x, s = step("count" if node.kind == "twice" else "accumulate", s, x)
        y, s = step("accumulate", s, x)
    elif node.kind == "explicit":
        y, s = step("accumulate", jax.lax.stop_gradient(s), x)
    else:
        y, s = step(node.kind, s, x)
    return y, ((*cells[: node.index], s, *cells[node.index + 1 :]), ensemble)


def _two(node, state, x):
    if node.kind in ("cond", "switch"):
        return run(node.first if x > 0.1 else node.second, state, x)
    y, state = run(node.first, state, x)
    z, state = run(node.second, state, y if node.kind == "then" else x)
    return (z if node.kind == "then" else y + z), state


def _within(node, state, x):
    kind, body = node.kind, node.body
    if kind == "eval_shape":
        return x, state
    if kind in ("vmap", "vmap out", "eqx.filter_vmap"):
        return _mapped(body, state, x)
    if kind == "map":
        return _map(body, state, x, node.number)
    if kind in ("while", "while state"):
        return _while(node, state, x)
    if kind in ("scan", "scan reverse", "scan unroll", "scan carry", "fori"):
        for i in range(node.number):
            i = node.number - 1 - i if kind == "scan reverse" else i
            y, state = run(body, state, x)
            x = 0.5 * y + 0.1 * i
        return x, state
    if kind in ("custom_jvp", "custom_vjp"):
        y, state = run(body, state, x)
        return _with_slope(jax.lax.stop_gradient(y), SLOPE * x), state
    if kind == "hessian":
        return _hessian(body, state, x)
    if kind == "value_and_grad":
        y, slope, state = _derivative(body, state, x)
        return y + slope, state
    if kind in ("jvp", "linearize", "vjp"):
        y, slope, state = _derivative(body, state, x)
        return y * 0.5 + 2.0 * slope, state
    if kind in ("grad", "jacfwd", "jacrev", "eqx.filter_grad"):
        _, slope, state = _derivative(body, state, x)
        return slope, state
    if kind == "callback":
        y, state = run(body, state, x)
        return jax.lax.stop_gradient(y) + x, state
    if kind == "root":  # explicit: what enters is constant, nothing is written outside
        return run(body, jax.lax.stop_gradient(state), x)[0], state
    return run(body, state, x)


def _with_slope(value, like):
    return value + (like - jax.lax.stop_gradient(like))


def _derivative(body, state, x):
    def function(x):
        return run(body, state, x)

    y, slope, state = jax.jvp(function, (x,), (jnp.ones_like(x),), has_aux=True)
    return y, slope, state


def _hessian(body, state, x):
    def slope(x):
        _, slope, new = _derivative(body, state, x)
        return slope, new

    _, second, state = jax.jvp(slope, (x,), (jnp.ones_like(x),), has_aux=True)
    return second, state


def _mapped(body, state, x):
    ends = [run(body, state, x + shift) for shift in SHIFTS]
    first = ends[0][1]
    for _, other in ends[1:]:
        same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), first, other)
        if not all(jax.tree.leaves(same)):
            raise MappedWriteError
    return sum(y for y, _ in ends) / len(ends), first


def _map(body, state, x, length):
    total = x
    for i in range(length):
        y, state = run(body, state, x + 0.1 * i)
        total = total + y
    return total, state


def _while(node, state, x):
    i = 0
    limit = 0.1 * state[0][0] if node.kind == "while state" else 10.0
    while i < node.number and limit > -5.0:
        y, state = run(node.body, state, x)
        x, i = 0.5 * y, i + 1
        limit = 0.1 * state[0][0] if node.kind == "while state" else 10.0
    return x, state
