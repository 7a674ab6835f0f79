"""Adapters of Flax: NNX modules, and Linen modules with their variables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.tree_util import Partial

from oryxstate.testing._adapters._adapted import Adapted, is_inexact, when_imported


class Split(NamedTuple):
    """An NNX module as `nnx.split` returns it.

    Attributes:
        graph: its structure and constants, which JAX compares.
        variables: its arrays.
    """

    graph: Any
    variables: Any


@when_imported("flax.nnx", "Module")
def adapt_nnx(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Adapt an NNX module: its graph is constant, its variables are the values."""
    nnx = sys.modules["flax.nnx"]

    def partition(values: Any) -> tuple[Any, Any]:
        def mask(variable: Any) -> Any:
            learned = isinstance(variable, nnx.Param)
            return jax.tree.map(lambda leaf: learned and is_inexact(leaf), variable)

        is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
        return eqx.partition(values, jax.tree.map(mask, values, is_leaf=is_variable))

    return Adapted(model, Split(*nnx.split(model)), _call_nnx, partition, label="Flax NNX module")


def _call_nnx(values: Split, /, *args: Any, **kwargs: Any) -> tuple[Any, Split]:
    nnx = sys.modules["flax.nnx"]
    fresh = jax.tree.map(lambda leaf: leaf, values.variables)  # the twin would share them
    twin = nnx.merge(values.graph, fresh)
    y = twin(*args, **kwargs)
    return y, Split(*nnx.split(twin))


@when_imported("flax.linen", "Module")
def adapt_linen(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Adapt a Linen module: bound to variables, or with those that its `init` makes."""
    if model.scope is None:
        rngs = {"params": jax.random.key(0), **_rngs_by_name(kwargs.get("rngs"))}
        own = {name: value for name, value in kwargs.items() if name != "rngs"}
        variables = model.init(rngs, *args, **own)
    else:
        model, variables = model.unbind()
    mutable = [name for name in variables if name != "params"]
    call = Partial(_call_linen, model, mutable)

    def partition(values: Any) -> tuple[Any, Any]:
        mask = {
            name: jax.tree.map(lambda leaf, p=name == "params": p and is_inexact(leaf), part)
            for name, part in values.items()
        }
        return eqx.partition(values, mask)

    return Adapted(model, dict(variables), call, partition, label="Flax Linen module")


def _call_linen(
    model: Any, mutable: list[str], values: Any, /, *args: Any, **kwargs: Any
) -> tuple[Any, Any]:
    y, updated = model.apply(values, *args, mutable=mutable, **kwargs)
    return y, {**values, **updated}


def _rngs_by_name(rngs: Any) -> Mapping[str, Any]:
    """Return random keys by name; one alone is that of all names, as in Flax."""
    if rngs is None:
        return {}
    return rngs if isinstance(rngs, Mapping) else {"params": rngs}
