"""Root calls over a batch: of one model for all examples, or with state for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp

from oryxstate import _api, _tree
from oryxstate._module import _call, _pytree, _takes
from oryxstate._module._base import Module

T = TypeVar("T")


def batch_call_and_update(obj: T, *xs: Any, **keywords: Any) -> tuple[Any, T]:
    """Run a model on a batch: its outputs for all examples, and one updated model.

    It is `call_and_update` with a `jax.vmap` inside: each example is an argument of `call`, the
    model and its keywords are shared, `BatchNorm` sees the whole batch, and from `rng` each example
    gets a key of its own. State that would differ by example is an error, unless its field says how
    examples combine (`ox.state(reduce=...)`).

    Args:
        obj: whatever `call_and_update` takes, also a bound method of a module.
        *xs: its arguments; the first axis of all arrays in them is that of the examples.
        **keywords: its keywords, the same for all examples.

    Returns:
        `(outputs, updated obj)`: outputs with a first axis, and the model without.

    Raises:
        EffectError: for state of one model that is written with a value for each example.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> xs = jnp.ones((16, 3))
        >>> model = ox.init(nn.Dense.of(4) >> nn.BatchNorm.of())(jax.random.key(0), xs[0])
        >>> ys, model = ox.batch_call_and_update(model, xs, training=True)
        >>> ys.shape, model.layers[1].mean.shape
        ((16, 4), (4,))
    """
    if not xs:
        raise TypeError(
            "`batch_call_and_update` maps the arguments of a call over their first axis, but got "
            "none. Give the batch: `ox.batch_call_and_update(model, xs)`."
        )
    if not _api.is_root(obj):
        return _batch_of_parts(obj, xs, keywords)
    function, tree, taken = _api.called(obj)

    def over_examples(live: Any, *xs: Any, **own: Any) -> Any:
        return jax.vmap(lambda *x: function(live, *x, **own))(*xs)

    out, new = _call.root(over_examples, tree, xs, keywords, taken=taken)
    return out, new


def _batch_of_parts(obj: Any, xs: tuple, keywords: dict) -> tuple[Any, Any]:
    """Run what is more than one root call: a container, a function, a type from outside."""
    rest: Any = None

    def one(*x: Any) -> tuple[Any, dict[int, Any]]:
        nonlocal rest
        out, new = _api.call_and_update(obj, *x, **keywords)
        leaves, structure = jax.tree.flatten(new)
        rest = leaves, structure
        return out, {i: leaf for i, leaf in enumerate(leaves) if _tree.is_array(leaf)}

    out, arrays = jax.vmap(one, out_axes=(0, None))(*xs)
    leaves, structure = rest
    return out, jax.tree.unflatten(structure, [arrays.get(i, x) for i, x in enumerate(leaves)])


def batch_call(obj: Any, *xs: Any, **keywords: Any) -> Any:
    """Return the outputs of `batch_call_and_update`; the update is dropped."""
    return batch_call_and_update(obj, *xs, **keywords)[0]


class PerExample(Module):
    """A model with the state of each of several examples, and shared params.

    Attributes:
        model: the model; its state has a first axis.
    """

    model: Any

    __state_stacked__: ClassVar[Mapping[str, str]] = {"model": "batch"}

    def call(self, *xs: Any, **keywords: Any) -> Any:
        """Run each example on the model with its own state."""
        leaves, structure = jax.tree.flatten(self.model)
        state = {i: leaves[i] for i in _state_positions(self.model)}

        own = {name: value for name, value in keywords.items() if name not in _takes.EVERYWHERE}
        mapped = {name: value for name, value in own.items() if _has_arrays(value)}

        def one(state: dict[int, Any], xs: tuple, mapped: dict) -> Any:
            each = [state.get(i, leaf) for i, leaf in enumerate(leaves)]
            return jax.tree.unflatten(structure, each)(*xs, **{**own, **mapped})

        return jax.vmap(one)(state, xs, mapped)


def per_example(model: Any, size: int) -> PerExample:
    """Give each example of a batch state of its own; the params stay shared.

    This is for state that belongs to an example, such as the cache of a decoder or the carry of a
    recurrent stream. The result is a module: its calls take a batch, and return one that has the
    state of each example.

    Args:
        model: a module.
        size: how many examples; each starts from the state of `model`.

    Returns:
        A module whose attribute `model` has the states, along a first axis. All arrays in the
        arguments and keywords of its calls have that axis too; `training` and `rng` are shared, and
        from `rng` each example gets a key of its own.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Total(ox.Module):
        ...     scale: jax.Array = ox.param()
        ...     total: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(total=self.total + self.scale * x)
        ...         return self.total
        >>> streams = ox.per_example(Total(jnp.array(2.0), jnp.array(0.0)), 3)
        >>> for x in (1.0, 10.0):
        ...     ys, streams = streams.call_and_update(jnp.array([x, 2 * x, 3 * x]))
        >>> ys.tolist(), streams.model.total.shape, streams.model.scale.shape
        ([22.0, 44.0, 66.0], (3,), ())
    """
    if not _pytree.is_module(model):
        raise TypeError(f"`per_example` takes a module, got {type(model).__name__}.")
    leaves, structure = jax.tree.flatten(model)
    for i in _state_positions(model):
        leaves[i] = jnp.repeat(jnp.expand_dims(leaves[i], 0), size, axis=0)
    return PerExample(jax.tree.unflatten(structure, leaves))


def _has_arrays(value: Any) -> bool:
    return any(map(_tree.is_array, jax.tree.leaves(value)))


def _state_positions(model: Any) -> list[int]:
    return _pytree.state_positions(_pytree.value_of(model))
