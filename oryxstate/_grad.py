"""Learned leaves of a model, and gradients with respect to them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp

from oryxstate import _tree
from oryxstate._select._places import PARAM, places
from oryxstate._select._selection import names_kind, params, selection

M = TypeVar("M")
P = ParamSpec("P")
Loss = TypeVar("Loss")
Aux = TypeVar("Aux")


def partition(model: M, wrt: Any = None) -> tuple[M, M]:
    """Split a model into what is learned and everything else.

    Learned are the floating-point arrays in `ox.param()` fields, in fields without a specifier, and
    outside modules; never state, integers, booleans or random keys.

    Args:
        model: a pytree that holds modules.
        wrt: learn only what this selects: a selection of `oryxstate.select`, a path or a class.
            State is learned only if the selection names a kind, such as `select.state`.

    Returns:
        `(params, rest)`, both of the structure of `model`, with None for the leaves of the other.

    Raises:
        ValueError: if `wrt` selects nothing that can be learned.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Scale(ox.Module):
        ...     scale: jax.Array = ox.param()
        ...     count: jax.Array = ox.state()
        >>> params, rest = ox.partition(Scale(jnp.ones(2), jnp.zeros((), int)))
        >>> params, rest
        (Scale(scale=f32[2], count=None), Scale(scale=None, count=i32[]))
        >>> ox.merge(params, rest)
        Scale(scale=f32[2], count=i32[])

        The encoder is frozen, here and in `ox.grad(loss, wrt=...)`:

        >>> model = {"encoder": jnp.ones(2), "head": jnp.ones(2)}
        >>> ox.partition(model, ~ox.select.path("encoder"))[0]
        {'encoder': None, 'head': Array([1., 1.], dtype=float32)}
    """
    return _tree.partition(model, _learned(model) if wrt is None else _learned_of(model, wrt))


def merge(params: M, rest: M) -> M:
    """Put a model together that `partition` split."""
    return _tree.combine(params, rest)


def _learned_of(model: Any, wrt: Any) -> Any:
    """A pytree like `model` of booleans: what can be learned of a selection."""
    selected = selection(wrt)
    if not names_kind(selected):
        selected = params & selected
    mask = selected.mask(model)
    learned = jax.tree.map(lambda wanted, x: wanted and _is_inexact(x), mask, model)
    if not any(jax.tree.leaves(learned)):
        paths = selected.paths(model)
        shown = ", ".join(paths[:3]) + (", ..." if paths[3:] else "")
        raise ValueError(
            f"`wrt` selects nothing that can be learned: {wrt!r} selects only {shown}, and "
            "integers, booleans and random keys have no gradient."
        )
    return learned


def _learned(model: Any) -> Any:
    """A pytree like `model` of booleans: what can be learned."""
    leaves = (place for place in places(model) if place.is_leaf)
    mask = [place.kind == PARAM and _is_inexact(place.value) for place in leaves]
    return jax.tree.unflatten(jax.tree.structure(model), mask)


def _is_inexact(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


@overload
def value_and_grad(
    function: Callable[Concatenate[M, P], Loss], *, wrt: Any = None, has_aux: Literal[False] = False
) -> Callable[Concatenate[M, P], tuple[Loss, M]]: ...
@overload
def value_and_grad(
    function: Callable[Concatenate[M, P], tuple[Loss, Aux]],
    *,
    wrt: Any = None,
    has_aux: Literal[True],
) -> Callable[Concatenate[M, P], tuple[tuple[Loss, Aux], M]]: ...
@overload
def value_and_grad(
    function: Callable[..., Any], *, wrt: Any = None, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]: ...
def value_and_grad(
    function: Callable[..., Any], *, wrt: Any = None, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Differentiate a loss with respect to what is learned in its first argument.

    Args:
        function: `(model, *args, **kwargs) -> loss`, or `(loss, aux)` with `has_aux`. The loss is a
            real scalar; the updated model is usually the `aux`.
        wrt: which of it, as for `partition`; all of it unless given. What is left out is a
            constant: it costs no backward pass, and its gradient is None.
        has_aux: whether the function returns a pair.

    Returns:
        A function that returns `(loss, gradient)`, or `((loss, aux), gradient)`. The gradient has
        the structure of the model, with None for all that is not learned, as optax takes it.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Scale(ox.Module):
        ...     scale: jax.Array = ox.param()
        ...     count: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(count=self.count + 1)
        ...         return self.scale * x
        >>> def loss(model, x):
        ...     return ox.call_and_update(model, x)
        >>> model = Scale(jnp.array(2.0), jnp.array(0))
        >>> (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model, 3.0)
        >>> float(value), float(gradient.scale), gradient.count, int(model.count)
        (6.0, 3.0, None, 1)
    """

    @functools.wraps(function)
    def run(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        learned, rest = partition(model, wrt)

        def of_learned(learned: Any) -> Any:
            return function(merge(learned, rest), *args, **kwargs)

        return jax.value_and_grad(of_learned, has_aux=has_aux)(learned)

    return run


@overload
def grad(
    function: Callable[Concatenate[M, P], Any], *, wrt: Any = None, has_aux: Literal[False] = False
) -> Callable[Concatenate[M, P], M]: ...
@overload
def grad(
    function: Callable[Concatenate[M, P], tuple[Any, Aux]],
    *,
    wrt: Any = None,
    has_aux: Literal[True],
) -> Callable[Concatenate[M, P], tuple[M, Aux]]: ...
@overload
def grad(
    function: Callable[..., Any], *, wrt: Any = None, has_aux: bool = False
) -> Callable[..., Any]: ...
def grad(
    function: Callable[..., Any], *, wrt: Any = None, has_aux: bool = False
) -> Callable[..., Any]:
    """Differentiate a loss as `value_and_grad` does, and return the gradient alone.

    Returns:
        A function that returns the gradient, or `(gradient, aux)` with `has_aux`.
    """

    @functools.wraps(function)
    def run(model: Any, *args: Any, **kwargs: Any) -> Any:
        value, gradient = value_and_grad(function, wrt=wrt, has_aux=has_aux)(model, *args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return run
