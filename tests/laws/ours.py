"""The same programs with our modules inside JAX's transformations: no state is threaded."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from laws import oracle
from laws.oracle import SHIFTS, SLOPE
from laws.programs import Cell, Ensemble, Plain, Two

import oryxstate as ox


class CellModule(ox.Module):
    """A cell: its state, and steps of several kinds."""

    s: jax.Array = ox.state()

    def call(self, kind, x):
        if kind == "twice":
            return self("accumulate", self("count", x))
        if kind == "recur":
            return self("accumulate", self("accumulate", x))
        if kind == "explicit":
            y, new = self.call_and_update("accumulate", x)
            self.assign(s=new.s)
            return y
        if kind == "read":
            return x + 0.1 * self.s
        y, new = oracle.step(kind, self.s, x)
        self.assign(s=new)
        # What was written is what is read.
        return y + 0.0 * (self.s - jax.lax.stop_gradient(self.s)) if kind == "count" else y


class Program(ox.Module):
    """A program and the cells that it uses."""

    cells: tuple[CellModule, ...]
    ensemble: CellModule
    node: object = ox.static()

    def call(self, x):
        return run(self.node, (self.cells, self.ensemble), x)


def program(node, cells, ensemble):
    """The model of a program."""
    return Program(tuple(CellModule(s) for s in cells), CellModule(ensemble), node)


def state(model):
    """The state of a model, as the oracle writes it."""
    return tuple(cell.s for cell in model.cells), model.ensemble.s


def run(node, modules, x):
    """Run a program on live modules, or on what became of them."""
    if isinstance(node, Plain):
        return oracle.plain(node.kind, x)
    if isinstance(node, Cell):
        return modules[0][node.index](node.kind, x)
    if isinstance(node, Ensemble):
        return jax.vmap(lambda m, x: m(node.kind, x))(modules[1], x + SHIFTS).mean()
    if isinstance(node, Two):
        return _two(node, modules, x)
    for table in (_LOOPS, _CALLS, _DERIVATIVES, _BATCHES):
        if node.kind in table:
            return table[node.kind](lambda x: run(node.body, modules, x), x, node, modules)
    raise ValueError(node.kind)


def _two(node, modules, x):
    def first(x):
        return run(node.first, modules, x)

    def second(x):
        return run(node.second, modules, x)

    if node.kind == "then":
        return second(first(x))
    if node.kind == "plus":
        return first(x) + second(x)
    if node.kind == "cond":
        return jax.lax.cond(x > 0.1, first, second, x)
    return jax.lax.switch(jnp.where(x > 0.1, 1, 0), [second, first, lambda x: x], x)


def _scan(f, x, node, modules, **options):
    def body(x, i):
        return 0.5 * f(x) + 0.1 * i, x

    return jax.lax.scan(body, x, jnp.arange(node.number, dtype=x.dtype), **options)[0]


def _scan_carry(f, x, node, modules):
    def body(carry, i):
        x, modules = carry
        return (0.5 * run(node.body, modules, x) + 0.1 * i, modules), None

    steps = jnp.arange(node.number, dtype=x.dtype)
    return jax.lax.scan(body, (x, modules), steps)[0][0]


def _fori(f, x, node, modules):
    return jax.lax.fori_loop(0, node.number, lambda i, x: 0.5 * f(x) + 0.1 * i.astype(x.dtype), x)


def _while(f, x, node, modules, uses_state):
    def go_on(carry):
        limit = 0.1 * modules[0][0].s if uses_state else 10.0
        return (carry[0] < node.number) & (limit > -5.0)

    return jax.lax.while_loop(go_on, lambda c: (c[0] + 1, 0.5 * f(c[1])), (0, x))[1]


def _map(f, x, node, modules):
    return x + jax.lax.map(f, x + 0.1 * jnp.arange(node.number, dtype=x.dtype)).sum()


_LOOPS = {
    "scan": _scan,
    "scan reverse": lambda *a: _scan(*a, reverse=True),
    "scan unroll": lambda *a: _scan(*a, unroll=2),
    "scan carry": _scan_carry,
    "fori": _fori,
    "while": lambda *a: _while(*a, uses_state=False),
    "while state": lambda *a: _while(*a, uses_state=True),
    "map": _map,
}


def _custom_jvp(f, x, node, modules):
    function = jax.custom_jvp(f)
    function.defjvp(lambda primals, tangents: (function(*primals), SLOPE * tangents[0]))
    return function(x)


def _custom_vjp(f, x, node, modules):
    function = jax.custom_vjp(f)
    function.defvjp(lambda x: (function(x), None), lambda _, bar: (SLOPE * bar,))
    return function(x)


def _root(f, x, node, modules):
    inner = Program(modules[0], modules[1], node.body)
    return inner.call_and_update(x)[0]


def _callback(f, x, node, modules):
    y = jax.lax.stop_gradient(f(x))
    shape = jax.ShapeDtypeStruct((), y.dtype)
    return jax.pure_callback(np.asarray, shape, y, vmap_method="sequential") + x


def _eval_shape(f, x, node, modules):
    assert jax.eval_shape(f, x).shape == x.shape
    return x


_CALLS = {
    "jit": lambda f, x, node, modules: jax.jit(f)(x),
    "jit inline": lambda f, x, node, modules: jax.jit(f, inline=True)(x),
    "jit argument": lambda f, x, node, modules: jax.jit(lambda m, x: run(node.body, m, x))(
        modules, x
    ),
    "checkpoint": lambda f, x, node, modules: jax.checkpoint(f)(x),
    "checkpoint dots": lambda f, x, node, modules: jax.checkpoint(
        f, policy=jax.checkpoint_policies.dots_saveable, prevent_cse=False
    )(x),
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "eqx.filter_jit": lambda f, x, node, modules: eqx.filter_jit(f)(x),
    "eqx.filter_checkpoint": lambda f, x, node, modules: eqx.filter_checkpoint(f)(x),
    "root": _root,
    "callback": _callback,
    "eval_shape": _eval_shape,
}


def _value_and_grad(f, x, node, modules):
    (y, _), slope = jax.value_and_grad(lambda x: (f(x), x), has_aux=True)(x)
    return y + slope


def _jvp(f, x, node, modules):
    y, slope = jax.jvp(f, (x,), (2.0 * jnp.ones_like(x),))
    return y * 0.5 + slope


def _vjp(f, x, node, modules):
    y, pull = jax.vjp(f, x)
    return y * 0.5 + pull(2.0 * jnp.ones_like(y))[0]


def _linearize(f, x, node, modules):
    y, slope = jax.linearize(f, x)
    return y * 0.5 + slope(2.0 * jnp.ones_like(x))


_DERIVATIVES = {
    "grad": lambda f, x, node, modules: jax.grad(f)(x),
    "value_and_grad": _value_and_grad,
    "jvp": _jvp,
    "vjp": _vjp,
    "linearize": _linearize,
    "jacfwd": lambda f, x, node, modules: jax.jacfwd(f)(x),
    "jacrev": lambda f, x, node, modules: jax.jacrev(f)(x),
    "hessian": lambda f, x, node, modules: jax.hessian(f)(x),
    "eqx.filter_grad": lambda f, x, node, modules: eqx.filter_grad(f)(x),
}
_BATCHES = {
    "vmap": lambda f, x, node, modules: jax.vmap(f)(x + SHIFTS).mean(),
    "vmap out": lambda f, x, node, modules: jax.vmap(
        lambda x: jnp.stack([f(x[0]), x[0]]), in_axes=1, out_axes=1
    )((x + SHIFTS)[None])[0].mean(),
    "eqx.filter_vmap": lambda f, x, node, modules: eqx.filter_vmap(f)(x + SHIFTS).mean(),
}
