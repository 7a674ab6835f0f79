"""Root calls inside a call: of its own modules, of another model, and what outlives them."""

from __future__ import annotations

import functools

import jax
from jax import lax
from programs.grammar import Within
from programs.starts import OTHER

import oryxstate as ox


def _root(f, x, node, modules):
    return modules.call_and_update(node.body, x)[0]


def assign(modules, new):
    """Give live modules the state of others."""
    pairs = [(modules.cell(i), new.cell(i)) for i in range(4)]
    pairs += [(modules.holder.cell, new.holder.cell), (modules.ensemble, new.ensemble)]
    pairs += [(modules.stack, new.stack)]
    pairs += zip(modules.pairs["pair"], new.pairs["pair"], strict=True)
    for live, left in pairs:
        live.assign(s=left.s, n=left.n)
    modules.tree.assign(tree=new.tree.tree)
    modules.key.assign(key=new.key.key)
    modules.reduced.assign(s=new.reduced.s)


def _root_update(f, x, node, modules):
    """A call with its update handed over by the user."""
    y, new = modules.call_and_update(node.body, x)
    assign(modules, new)
    return y


@functools.cache
def _other(cls):
    """A model with the structure and the paths of the one that is called, closed over."""
    with jax.ensure_compile_time_eval():
        return cls.of(OTHER)


@functools.cache
def jitted_root(node):
    """One jitted root call for all models, so that JAX caches its trace."""
    return jax.jit(lambda modules, x: ox.call_and_update(modules, node, x))


def _of_other(f, x, node, modules):
    y, new = ox.call_and_update(_other(type(modules)), node.body, x)
    return y + 0.1 * new.cells[0].s


def _argument(f, x, node, modules):
    y, _ = jitted_root(node.body)(modules, x)
    z, _ = jitted_root(node.body)(_other(type(modules)), x)
    return 0.5 * (y + z)


def _shared(f, x, node, modules):
    """Both models run a function that was jitted once."""
    program = Within("jit argument", node.body)
    z, _ = ox.call_and_update(_other(type(modules)), program, x)
    return 0.5 * (modules(program, x) + z)


def _reaches(f, x, node, modules):
    """Another model's call reaches the modules of this one."""
    return ox.call_and_update(_other(type(modules)), lambda _, x: f(x), x)[0]


def _itself(x):
    return x


def _kept(f, x, node, modules, keep=_itself, run=_itself, model=None):
    """A module of a root call that has ended; its path is that of a module of this one."""
    kept = []

    def program(modules, x):
        kept.append(keep(modules.cells[0]))
        return x

    model = _other(type(modules)) if model is None else model(modules)
    run(lambda model, x: ox.call_and_update(model, program, x))(model, f(x))
    return kept[0]("accumulate", x)


KEPT: list = []


def keeper(modules, x):
    """A program that keeps a module for later, and a function of it that JAX has cached."""
    cell = modules.cells[0]
    function = jax.jit(lambda x: cell("accumulate", x))
    KEPT.append((cell, function))
    return function(x)


def _kept_earlier(f, x, node, modules):
    """A module of an earlier call of this model, with the path that it has now."""
    return KEPT[-1][0]("accumulate", f(x))


def _kept_function(f, x, node, modules):
    """A function of such a module, whose trace JAX has cached."""
    return KEPT[-1][1](f(x))


def _stays(f, x, node, modules):
    """A snapshot is what the module was, whatever became of it, and its calls are pure."""
    before = ox.snapshot(modules)
    y = f(x)
    return 0.5 * (y + before.call_and_update(node.body, x)[0])


def _change(f, x, node, modules):
    before = ox.snapshot(modules)
    y = f(x)
    after = ox.snapshot(modules)
    change = jax.tree.map(lambda new, old: new - old, after.cells, before.cells)
    return y + 0.1 * change[0].s


def _called(f, x, node, modules):
    """No model takes the update of a snapshot."""
    return ox.snapshot(modules)(node.body, x)


def _traced(f, x, node, modules):
    y = f(x)
    after = jax.jit(lambda m, x: ox.snapshot(m).call_and_update(node.body, x)[0])(modules, x)
    snapshot = ox.snapshot(modules)

    def body(total, _):
        return 0.5 * (total + snapshot.call_and_update(node.body, x)[0]), None

    return 0.5 * (y + lax.scan(body, after, None, length=1)[0])


CALLS = {
    "root": _root,
    "root update": _root_update,
    "other root": _of_other,
    "other root argument": _argument,
    "other root shared": _shared,
    "other root reaches": _reaches,
    "kept live": _kept,
    "kept value": functools.partial(_kept, keep=lambda cell: jax.tree.map(lambda x: x, cell)),
    "kept in jit": functools.partial(_kept, run=jax.jit),
    "kept own": functools.partial(_kept, model=_itself),
    "kept earlier": _kept_earlier,
    "kept function": _kept_function,
    "snapshot stays": _stays,
    "snapshot change": _change,
    "snapshot called": _called,
    "snapshot traced": _traced,
}
