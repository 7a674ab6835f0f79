"""Root calls in a row, whose state is threaded by hand and then given back."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from programs.ours_roots import assign, jitted_root

import oryxstate as ox


def shifted(modules, by):
    """The modules with a number added to state of several kinds."""
    return modules.replace(
        cells=tuple(cell.replace(s=cell.s + by) for cell in modules.cells),
        stack=modules.stack.replace(s=modules.stack.s + by),
        reduced=modules.reduced.replace(s=modules.reduced.s + by),
    )


def total(modules):
    """The sum of state of several kinds."""
    cells = sum(cell.s for cell in modules.cells)
    return cells + modules.stack.s.sum() + modules.reduced.s + modules.tree.tree["a"]


def _itself(modules):
    return modules


def _step(node, x, modules, i, call):
    y, modules = call(modules, x)
    return 0.5 * y + 0.1 * i, modules


def _python(node, x, modules, call):
    for i in range(node.number):
        x, modules = _step(node, x, modules, i, call)
    return x, modules


def _scan(node, x, modules, call, start=ox.snapshot):
    def body(carry, i):
        return _step(node, *carry, i, call), None

    carry, _ = lax.scan(body, (x, start(modules)), jnp.arange(node.number, dtype=x.dtype))
    return carry


def _fori(node, x, modules, call):
    def body(i, carry):
        return _step(node, *carry, i.astype(x.dtype), call)

    return lax.fori_loop(0, node.number, body, (x, ox.snapshot(modules)))


def _while(node, x, modules, call):
    def body(carry):
        i, *carry = carry
        return i + 1, *_step(node, *carry, i.astype(x.dtype), call)

    start = jnp.int32(0), x, ox.snapshot(modules)
    return lax.while_loop(lambda carry: carry[0] < node.number, body, start)[1:]


def _eager(node):
    return lambda modules, x: modules.call_and_update(node, x)


def _thread(f, x, node, modules, loop=_python, call=_eager):
    y, new = loop(node, x, modules, call(node.body))
    assign(modules, new)
    return y


def _grad(f, x, node, modules):
    """Backpropagation through time with respect to the state that the first call gets."""
    start = ox.snapshot(modules)

    def loss(shift):
        y, new = _python(node, x, shifted(start, shift), _eager(node.body))
        return y + 0.3 * total(new)

    y, slope = jax.value_and_grad(loss)(0.0 * x)
    return 0.5 * y + slope


CALLS = {
    "thread": _thread,
    "thread jit": functools.partial(_thread, call=jitted_root),
    "thread scan": functools.partial(_thread, loop=_scan),
    "thread live": functools.partial(_thread, loop=functools.partial(_scan, start=_itself)),
    "thread fori": functools.partial(_thread, loop=_fori),
    "thread while": functools.partial(_thread, loop=_while),
    "thread grad": _grad,
}
