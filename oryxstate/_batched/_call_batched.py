"""The call of a live layer that defines `call_batched`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import jax

from oryxstate import _tree
from oryxstate._batched import _primitive
from oryxstate._module import _call, _hook, _keywords, _live, _pytree, _takes
from oryxstate._module._static import type_key


class _Computation:
    """The computation of a layer, for one example and for all; without arrays: JAX may keep it.

    What all examples share is the layer, and the keywords for modules in it.
    """

    def __init__(
        self, one: Callable[..., Any], live: Any, layer: Any, below: tuple, leaves: list, given: Any
    ):
        self._one, self._all = one, type(live).call_batched
        self._path = live.__dict__[_pytree.PLACE].path
        self._static_below, arrays = below
        self._shared = jax.tree.structure((_live.detach(layer), arrays))
        self._given = given
        self.at = [i for i, leaf in enumerate(leaves) if _tree.is_array(leaf)]
        self._static = [None if i in self.at else leaf for i, leaf in enumerate(leaves)]
        self.written = _pytree.state_positions(layer)
        self.out: Any = None

    def key(self, avals: Iterable[Any]) -> Any:
        """Return all that the types of its outputs depend on."""
        below = self._static_below
        static = tuple((x, type_key(x)) for x in (*self._static, *below.values()))
        return self._shared, self._given, tuple(below), static, *avals

    def one(self, shared: Any, inputs: Any) -> tuple[list, list]:
        """Run the call as written."""
        return self._run(self._one, shared, inputs)

    def batch(self, shared: Any, inputs: Any) -> tuple[list, list]:
        """Run `call_batched`."""
        return self._run(self._all, shared, inputs)

    def _run(self, function: Callable[..., Any], shared: Any, inputs: Any) -> tuple[list, list]:
        leaves = list(self._static)
        for i, x in zip(self.at, inputs, strict=True):
            leaves[i] = x
        args, keywords = jax.tree.unflatten(self._given, leaves)

        def run(live: Any, *args: Any) -> Any:
            return _hook.run(function, live, *args, **keywords)

        layer, arrays = jax.tree.unflatten(self._shared, shared)
        below = {**self._static_below, **arrays}
        out, new = _call.root(run, layer, args, below, taken=_takes.NONE, path=self._path)
        flat, self.out = jax.tree.flatten(out)
        new = jax.tree.leaves(new)
        return flat, [new[i] for i in self.written]


@_hook.runs_batched
def call(one: Callable[..., Any], live: Any, args: tuple, kwargs: dict) -> Any:
    """Run a live layer on one example, its `call_batched` on all examples of the `vmap`s around.

    Args:
        one: its `call` as written, for an example without others.
        live: the layer.
        args: the arguments of the call, for one example.
        kwargs: its keywords, complete.
    """
    before, place = _pytree.value_of(live), live.__dict__[_pytree.PLACE]
    inside = _takes.taken_inside(before, below=True) if live.__layout__.children else ()
    below = _keywords.handed_down(place, inside)
    shared, structure = jax.tree.flatten((before, below[1]))
    leaves, given = jax.tree.flatten((args, kwargs))
    computation = _Computation(one, live, before, below, leaves, given)
    inputs = [leaves[i] for i in computation.at]
    examples = _primitive.Examples(computation.one, computation.batch)
    key = computation.key(map(jax.typeof, (*shared, *inputs)))
    known = _known.setdefault(type(live), {})
    if key not in known:
        known[key] = _primitive.avals_of(examples, shared, inputs), computation.out
    avals, out_structure = known[key]
    out, new = _primitive.per_example(examples, shared, inputs, avals)
    for i, leaf in zip(computation.written, new, strict=True):
        shared[i] = leaf
    after, _ = jax.tree.unflatten(structure, shared)
    _call.assign(live, before, after, type(live).__name__)
    return jax.tree.unflatten(out_structure, out)


# The avals of the outputs of each class, by all that they depend on; equal layers are staged once.
_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
