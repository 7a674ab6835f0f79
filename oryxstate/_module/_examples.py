"""How is a layer called that has a rule for whole batches?"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import jax

from oryxstate import _tree
from oryxstate._effects import _batched
from oryxstate._module import _call, _live, _pytree
from oryxstate._module._static import type_key


def call(one: Callable[..., Any], live: Any, args: tuple, kwargs: dict) -> Any:
    """Run a live layer on one example, its `call_batched` on all examples of the `vmap`s around.

    Args:
        one: its `call` as written, for an example without others.
        live: the layer.
        args: the arguments of the call, for one example.
        kwargs: its keywords, complete.
    """
    before = _pytree.value_of(live)
    shared, structure = jax.tree.flatten(before)
    leaves, given = jax.tree.flatten((args, kwargs))
    at = [i for i, leaf in enumerate(leaves) if _tree.is_array(leaf)]
    written = _pytree.state_positions(before)
    out_structure: Any = None

    def run(function: Callable[..., Any], shared: Any, inputs: Any) -> tuple[list, list]:
        nonlocal out_structure
        for i, x in zip(at, inputs, strict=True):
            leaves[i] = x
        xs, keywords = jax.tree.unflatten(given, leaves)
        layer = jax.tree.unflatten(structure, shared)
        out, new = _call.root(
            lambda live, *args: function(live, *args, **keywords),
            layer,
            xs,
            {},
            path=live.__dict__[_pytree.PLACE].path,
            constant=False,
        )
        flat, out_structure = jax.tree.flatten(out)
        new = jax.tree.leaves(new)
        return flat, [new[i] for i in written]

    def batch(shared: Any, inputs: Any) -> tuple[list, list]:
        return run(type(live).call_batched, shared, inputs)

    examples = _batched.Examples(lambda shared, inputs: run(one, shared, inputs), batch)
    inputs = [leaves[i] for i in at]
    static = tuple((i, x, type_key(x)) for i, x in enumerate(leaves) if i not in at)
    key = _plain(structure), given, static, *map(jax.typeof, (*shared, *inputs))
    known = _known.setdefault(type(live), {})
    if key not in known:
        known[key] = _batched.avals_of(examples, shared, inputs), out_structure
    avals, out_structure = known[key]
    out, new = _batched.per_example(examples, shared, inputs, avals)
    changed = list(shared)
    for i, leaf in zip(written, new, strict=True):
        changed[i] = leaf
    _call.assign(live, before, jax.tree.unflatten(structure, changed), type(live).__name__)
    return jax.tree.unflatten(out_structure, out)


# What JAX knows of the outputs of a class, by all that it depends on; equal layers are staged once.
_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _plain(structure: Any) -> Any:
    """The structure of a module wherever it stands."""
    module = jax.tree.unflatten(structure, [None] * structure.num_leaves)
    return jax.tree.structure(_live.plain(module), is_leaf=lambda x: x is None)
