"""The shardings of the arrays of a tree on a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import jax
from jax.sharding import NamedSharding

from oryxstate import _tree
from oryxstate._module._axes import Named, named
from oryxstate.sharding._report import Placement, Report
from oryxstate.sharding._rules import Rules, checked, spec_of

T = TypeVar("T")


def shardings(tree: T, mesh: Any, rules: Rules, *, max_unsharded: float | None = None) -> T:
    """Say on which devices of a mesh the arrays of a tree are, by the names of their axes.

    Layers name the axes of their arrays, `ox.param(axes=("embed", "mlp"))`, and rules lead from
    these names to axes of the mesh. An optimizer's state holds modules like the model, and gets
    their shardings. What no rule speaks of is whole on every device.

    Args:
        tree: a model, the state of an optimizer, or any pytree of them: of arrays or of
            `jax.ShapeDtypeStruct`.
        mesh: a `jax.sharding.Mesh`, or an `AbstractMesh`.
        rules: from names to axes of the mesh: `sharding.DATA_PARALLEL`, `sharding.FSDP`,
            `sharding.TENSOR_PARALLEL`, or a dictionary made of these and your own,
            `{**sharding.FSDP, **sharding.TENSOR_PARALLEL, "vocab": None}`. A name may lead to one
            mesh axis, to several, or to None. Rules apply in their order, and no array uses a mesh
            axis twice. The key `...` stands for the largest axis that is left and that divides, of
            arrays that have more than one axis besides stacked ones.
        max_unsharded: the share of the bytes that may be in arrays that are whole on every device,
            such as 0.02.

    Returns:
        A pytree like `tree` of `jax.sharding.NamedSharding`, None for a leaf that is not an array:
        for `jax.device_put`, and for `in_shardings` and `out_shardings` of `jax.jit`.

    Raises:
        ValueError: if a rule names an axis that the mesh does not have, or does not divide an axis
            of an array, or if too many bytes are in arrays that are not sharded; with path, axis
            and sizes.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, sharding
        >>> model = ox.init(nn.MLP.of((32, 8)))(jax.random.key(0), jnp.ones(8))
        >>> mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
        >>> rules = {**sharding.FSDP, **sharding.TENSOR_PARALLEL}
        >>> placed = ox.shardings(model, mesh, rules)
        >>> tuple(placed.layers[0].kernel.spec), tuple(placed.layers[1].kernel.spec)
        (('data', 'model'), ('model', 'data'))
    """
    found = named(tree)
    placed = _placed(found, mesh, rules)
    if max_unsharded is not None:
        _report(placed, mesh).check(max_unsharded)
    return jax.tree.unflatten(jax.tree.structure(tree), [sharding for _, sharding in placed])


def abstract(tree: T, mesh: Any, rules: Rules) -> T:
    """Return a tree of `jax.ShapeDtypeStruct` with shardings, to restore a checkpoint into.

    Args:
        tree: as for `oryxstate.shardings`; of `jax.ShapeDtypeStruct` from `jax.eval_shape`, no
            array needs to exist.
        mesh: as for `oryxstate.shardings`.
        rules: as for `oryxstate.shardings`.

    Raises:
        ValueError: as `oryxstate.shardings`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, sharding
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> model = jax.eval_shape(ox.init(nn.Dense.of(8)), jax.random.key(0), jnp.ones(4))
        >>> into = sharding.abstract(model, mesh, sharding.FSDP)
        >>> into.kernel.shape, tuple(into.kernel.sharding.spec)
        ((4, 8), (None, 'data'))
    """
    placed = _placed(named(tree), mesh, rules)
    leaves = [leaf if s is None else _spec(leaf, s) for (_, leaf, *_), s in placed]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _spec(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=weak)


def report(tree: Any, mesh: Any, rules: Rules) -> Report:
    """Report how the arrays of a tree are placed, by path, and the bytes on each device.

    Args:
        tree: as for `oryxstate.shardings`.
        mesh: as for `oryxstate.shardings`.
        rules: as for `oryxstate.shardings`.

    Raises:
        ValueError: as `oryxstate.shardings`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, sharding
        >>> model = ox.init(nn.MLP.of((32, 8)))(jax.random.key(0), jnp.ones(8))
        >>> mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
        >>> print(sharding.report(model, mesh, {**sharding.FSDP, **sharding.TENSOR_PARALLEL}))
        path               array           axes         on the mesh     bytes   per device
        layers[0].kernel   float32[8,32]   embed, mlp   data, model     1,024          128
        layers[0].bias     float32[32]     mlp          model             128           64
        layers[1].kernel   float32[32,8]   mlp, embed   model, data     1,024          128
        layers[1].bias     float32[8]      embed        -                  32           32
        4 arrays on 8 devices                                          2,208          352
    """
    return _report(_placed(named(tree), mesh, rules), mesh)


def _placed(
    found: list[Named], mesh: Any, rules: Rules
) -> list[tuple[Named, NamedSharding | None]]:
    checked_rules = checked(rules, mesh, found)
    return [
        (each, NamedSharding(mesh, spec_of(each, checked_rules, mesh.shape)))
        if _tree.is_array(each.leaf) or _tree.is_spec(each.leaf)
        else (each, None)
        for each in found
    ]


def _report(placed: list[tuple[Named, NamedSharding | None]], mesh: Any) -> Report:
    return Report(tuple(_rows(placed)), mesh.size)


def _rows(placed: list[tuple[Named, NamedSharding | None]]) -> Iterator[Placement]:
    for each, sharding in placed:
        if sharding is not None:
            spec = _tree.make_array_spec(each.leaf)
            share = sharding.shard_shape(spec.shape)
            yield Placement(each.path, spec, each.names, sharding.spec, share)
