"""Results of functions made in place, on the devices of a mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from oryxstate.sharding._rules import Rules
from oryxstate.sharding._shardings import shardings

T = TypeVar("T")


def make(
    function: Callable[..., T], mesh: Mesh, rules: Rules, *, max_unsharded: float | None = None
) -> Callable[..., T]:
    """Return a function like another whose arrays come out placed, and never exist as a whole.

    The function is traced for the shapes of its result, and compiled for the shardings that
    `oryxstate.shardings` gives these: each device computes its own part. Random numbers do not
    depend on the number of devices.

    Args:
        function: makes a model, such as `ox.init(template)`, or a model and the state of its
            optimizer.
        mesh: the devices.
        rules: as for `oryxstate.shardings`.
        max_unsharded: as for `oryxstate.shardings`.

    Raises:
        ValueError: as `oryxstate.shardings`, when the function returned is called.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> import oryxstate as ox
        >>> from oryxstate import nn, sharding
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> optimizer = optax.adam(1e-3)
        >>> def start(key):
        ...     model = ox.init(nn.MLP.of((32, 8)))(key, jnp.ones(8))
        ...     return model, optimizer.init(ox.partition(model)[0])
        >>> model, opt_state = sharding.make(start, mesh, sharding.FSDP)(jax.random.key(0))
        >>> mean = opt_state[0].mu
        >>> [tuple(part.layers[0].kernel.sharding.spec) for part in (model, mean)]
        [(None, 'data'), (None, 'data')]
    """

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> T:
        shapes = eqx.filter_eval_shape(function, *args, **kwargs)
        placed = shardings(shapes, mesh, rules, max_unsharded=max_unsharded)
        return _computed(function, args, kwargs, shapes, placed, mesh)

    return made


def _computed(function: Any, args: tuple, kwargs: dict, shapes: Any, placed: Any, mesh: Mesh):
    """Run a function with the compiler free to choose what no sharding says."""
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)
    arrays, others = eqx.partition((args, kwargs), eqx.is_array)
    arrays = jax.device_put(arrays, NamedSharding(auto, PartitionSpec()))

    def run(arrays: Any) -> list[Any]:
        args, kwargs = eqx.combine(arrays, others)
        return jax.tree.leaves(eqx.filter(function(*args, **kwargs), eqx.is_array))

    leaves, treedef = jax.tree.flatten(shapes)
    wanted = jax.tree.leaves(placed)
    in_place = [NamedSharding(auto, s.spec) for s in wanted]
    with jax.set_mesh(auto):
        found = jax.jit(run, out_shardings=in_place)(arrays)
    new = iter(jax.device_put(found, wanted))
    is_spec = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]
    leaves = [next(new) if s else leaf for s, leaf in zip(is_spec, leaves, strict=True)]
    return jax.tree.unflatten(treedef, leaves)
