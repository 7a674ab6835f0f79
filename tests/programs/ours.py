"""The same programs with our modules inside JAX's transformations: no state is threaded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from programs import (
    oracle,
    ours_backward,
    ours_calls,
    ours_forward,
    ours_hosts,
    ours_loops,
    ours_roots,
    ours_stacks,
    ours_threads,
    parts,
)  # fmt: skip
from programs.grammar import BRANCH, PLAIN, SHIFTS, Cell, Ensemble, Host, Other, Stack, Two

import oryxstate as ox

TABLES = (
    ours_loops.LOOPS, ours_loops.BATCHES, ours_calls.CALLS, ours_calls.DERIVATIVES,
    ours_stacks.STACKED, ours_roots.CALLS, ours_threads.CALLS, ours_backward.CALLS,
    ours_forward.CALLS,
)  # fmt: skip


class Parts(ox.Module):
    """All modules of a program; called with a program, it runs it on itself."""

    cells: tuple
    more: dict[str, list]
    holder: parts.Holder
    ensemble: parts.Cell
    stack: parts.Cell
    pairs: dict[str, tuple]
    tree: parts.Tree
    key: parts.Key
    reduced: parts.Reduced
    weight: jax.Array = ox.param()

    @classmethod
    def of(cls, state: dict) -> Parts:
        """The modules in a state of the oracle's."""
        return cls(*parts.of(state))

    def call(self, node, x):
        return run(node, self, x)

    def cell(self, index):
        """The cell of this index, wherever it is."""
        if index < 3:
            return self.cells[index]
        return self.more["cells"][0] if index == 3 else self.holder


class Program(ox.Module):
    """The model of a program."""

    parts: Parts
    node: Any = ox.static()

    def call(self, x):
        return self.parts(self.node, x)


def run(node, modules: Parts, x):
    """Run a program, or a function of modules and x, on live modules."""
    if callable(node):
        return node(modules, x)
    if isinstance(node, Cell):
        return modules.cell(node.index)(node.kind, x)
    if isinstance(node, Other):
        return _other(node.kind, modules, x)
    if isinstance(node, Ensemble):
        call = jax.vmap(lambda m, x: m(node.kind, x), (int(node.variant), 0))
        return call(modules.ensemble, x + jnp.array(SHIFTS, x.dtype)).mean()
    if isinstance(node, Stack):
        return ours_stacks.call(node, modules, x)
    if isinstance(node, Host):
        return ours_hosts.call(node.kind, modules, x)
    if isinstance(node, Two):
        return _two(node, modules, x)
    for table in TABLES:
        if node.kind in table:
            return table[node.kind](lambda x: run(node.body, modules, x), x, node, modules)
    raise ValueError(node.kind)


def _other(kind, modules, x):
    if kind in PLAIN:
        return oracle.plain(kind, x, modules.weight, jnp.sin)
    if kind.startswith("tree"):
        return modules.tree(x, kind == "tree")
    if kind == "key":
        return modules.key(x)
    return modules.reduced(modules.reduced(x) if kind == "reduced twice" else x)


def _two(node, modules, x):
    def first(x):
        return run(node.first, modules, x)

    def second(x):
        return run(node.second, modules, x)

    go_first = x > BRANCH
    if node.kind == "then":
        return second(first(x))
    if node.kind == "plus":
        return first(x) + second(x)
    if node.kind == "cond":
        return lax.cond(go_first, first, second, x)
    if node.kind == "cond closure":
        return lax.cond(go_first, lambda: first(x), lambda: second(x))
    if node.kind == "cond argument":
        branches = ours_calls.on_argument(node.first), ours_calls.on_argument(node.second)
        return lax.cond(go_first, *branches, modules, x)
    if node.kind == "switch":
        return lax.switch(jnp.where(go_first, 1, 0), [second, first, lambda x: x], x)
    s = modules.cells[0].s
    index = jnp.where(s > 1.5, 7, jnp.where(s > 0.45, 1, 0))  # clamped
    return lax.switch(index, [first, second, lambda x: x], x)
