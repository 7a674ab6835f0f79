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
        wanted = jax.tree.leaves(placed)
        auto = _automatic(mesh)
        with jax.set_mesh(auto):
            run, arrays = prepared(function, args, kwargs, wanted, auto)
            found = run(arrays)
        new = iter(jax.device_put(found, wanted))
        leaves, treedef = jax.tree.flatten(shapes)
        is_array = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]
        leaves = [next(new) if i else leaf for i, leaf in zip(is_array, leaves, strict=True)]
        return jax.tree.unflatten(treedef, leaves)

    return made


def _automatic(mesh: Mesh) -> Mesh:
    """Return the mesh with axes on which the compiler chooses what no sharding says."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def prepared(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wanted: list[NamedSharding],
    mesh: Mesh,
) -> tuple[Any, Any]:
    """Return the jitted function that makes the arrays of a result in place, and its argument."""
    arrays, others = eqx.partition((args, kwargs), eqx.is_array)
    arrays = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec()))

    def run(arrays: Any) -> list[Any]:
        args, kwargs = eqx.combine(arrays, others)
        return jax.tree.leaves(eqx.filter(function(*args, **kwargs), eqx.is_array))

    in_place = [NamedSharding(mesh, each.spec) for each in wanted]
    return jax.jit(run, out_shardings=in_place), arrays
