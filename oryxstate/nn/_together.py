"""Parts of a combinator that are equal: inferred once, and drawn together.

A hundred layers that are drawn one by one are a thousand small operations, each dispatched from
Python, or under `jax.jit` a hundred copies of the same program to compile. A `vmap` over their keys
draws the same numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _tree
from oryxstate._module._static import type_key
from oryxstate.nn._parts import Lambda, build
from oryxstate.nn._template import Template

AT_LEAST = 3  # a vmap costs as much as two layers
ELEMENTS = 2**24  # in the arrays drawn together, which are there twice for a moment
GENERATOR = "threefry2x32"  # the numbers of others depend on what is drawn beside them


class Parts:
    """The layers of a combinator, made of its parts in their order, each with its own key.

    Args:
        init_key: the key of the combinator.
        count: the number of parts.
    """

    def __init__(self, init_key: Any, count: int):
        self._key = init_key
        self._at_once = count >= AT_LEAST and _tree.key_impl(_typed(init_key)) == GENERATOR
        if self._at_once:
            self._keys = list(_folded_in(init_key, np.arange(count, dtype=np.uint32)))
        self._layers: list[Any] = []
        self._first: dict[Any, tuple[int, Any]] = {}
        self._later: dict[int, list[int]] = {}
        self._todo: list[tuple[Any, Any]] = []

    def add(self, part: Any, in_spec: Any) -> Any:
        """Add a part for these inputs, and return the specs of its outputs.

        Raises:
            InputError: if the part does not take such inputs, with its path.
        """
        kind, i = _kind(part, in_spec), len(self._layers)
        self._todo.append((part, in_spec))
        first, out_spec = self._first.get(kind, (i, None))
        if first == i or not (isinstance(part, Template) or _is_known(part)):
            layer, infer = self._built(i)
            out_spec = infer()
            self._layers.append(layer)
            if kind is not None:
                self._first[kind] = i, out_spec
        elif isinstance(part, Template) and not _is_drawn_alone(part):
            self._layers.append(None)
            self._later.setdefault(first, []).append(i)
        elif getattr(self._layers[first], "function", None) is part:
            self._layers.append(Lambda(part))
        else:
            self._layers.append(self._built(i)[0])
        return out_spec

    def layers(self) -> tuple[Any, ...]:
        """Return the layers, each drawn."""
        for first, later in self._later.items():
            for some in self._chunks(self._layers[first], later):
                for i, layer in zip(some, self._drawn(some), strict=True):
                    self._layers[i] = layer
        return tuple(self._layers)

    def _built(self, i: int) -> tuple[Any, Any]:
        part, in_spec = self._todo[i]
        key = self._keys[i] if self._at_once else jax.random.fold_in(self._key, i)
        return build(part, key, in_spec, f"layers[{i}]")

    def _chunks(self, layer: Any, later: list[int]) -> Iterator[list[int]]:
        """Divide layers into those that are drawn together."""
        elements = sum(leaf.size for leaf in jax.tree.leaves(layer))
        at_once = max(1, ELEMENTS // max(1, elements))
        if at_once < AT_LEAST or not self._at_once:
            at_once = 1
        for start in range(0, len(later), at_once):
            yield later[start : start + at_once]

    def _drawn(self, some: list[int]) -> list[Any]:
        """Draw equal layers."""
        if len(some) < AT_LEAST:
            return [self._built(i)[0] for i in some]
        part, in_spec = self._todo[some[0]]
        positions = np.array(some, np.uint32)

        def one(i: Any) -> Any:
            key = jax.random.fold_in(self._key, i)
            return build(part, key, in_spec, f"layers[{some[0]}]")[0]

        leaves, treedef = jax.tree.flatten(jax.vmap(one)(positions))
        each = zip(*map(list, leaves), strict=True) if leaves else [()] * len(some)
        return [jax.tree.unflatten(treedef, leaves) for leaves in each]


_folded_in = jax.vmap(jax.random.fold_in, (None, 0))


def _kind(part: Any, in_spec: Any) -> Any:
    """Return what equal parts with equal inputs have in common; None if that cannot be compared."""
    kind = part, type_key(part), in_spec
    try:
        hash(kind)
    except TypeError:
        return None
    return kind


def _is_drawn_alone(part: Any) -> bool:
    """Tell whether code other than JAX's and ours may draw, which may give other numbers."""
    if isinstance(part, Template):
        inner = (part.args, tuple(value for _, value in part.options))
        return not _is_known(part.layer) or _is_drawn_alone(inner)
    if isinstance(part, tuple | list):
        return any(map(_is_drawn_alone, part))
    if any(map(_tree.is_array, jax.tree.leaves(part))):  # a layer that is made is shared, not drawn
        return True
    return callable(part) and not _is_known(part)


def _is_known(value: Any) -> bool:
    """Tell whether a class or a function is JAX's or ours."""
    of_types = inspect.isclass(value) and issubclass(value, np.generic)  # a dtype
    module = getattr(value, "__module__", None) or ""
    return of_types or module.partition(".")[0] in ("jax", "oryxstate")


def _typed(key: Any) -> Any:
    """Return a random key, also of a raw one."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
