"""Natural derivatives of new state, for functions whose outputs have a derivative of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _tangents


def state_jvp(new_state: Callable[..., Any], primals: Sequence, tangents: Sequence) -> tuple:
    """Differentiate new state, a function of `(read, written, args)`, with respect to all of them.

    Returns:
        The new state and its tangents, as the rule of a `custom_jvp` returns them.
    """
    if not any(map(is_inexact, jax.tree.leaves(primals[1]))):  # of the types of what is written
        return constant(new_state, primals)
    return jvp(new_state, primals, tangents)


def state_vjp(new_state: Callable[..., Any], primals: Sequence, cotangents: Any) -> Any:
    """Pull cotangents of the new state back to `(read, written, args)`, computing it again.

    What belongs to one trace, such as the function that `jax.vjp` returns, must not be kept: JAX
    stages a function once and differentiates it with several patterns of perturbed inputs.

    Returns:
        The cotangents of the leaves of the primals in a list, None for those without.
    """
    values, tree = jax.tree.flatten(tuple(primals))
    at = [i for i, x in enumerate(values) if is_inexact(x)]

    def of_some(some):
        merged = list(values)
        for i, x in zip(at, some, strict=True):
            merged[i] = x
        new = new_state(*jax.tree.unflatten(tree, merged))
        return [x for x in jax.tree.leaves(new) if is_inexact(x)]

    found: list[Any] = [None] * len(values)
    bars = jax.tree.leaves(cotangents, is_leaf=_tangents.is_zero)
    bars = [bar for bar in bars if jnp.issubdtype(_tangents.dtype_of(bar), jnp.inexact)]
    if not all(map(_tangents.is_zero, bars)):
        _, pull = jax.vjp(of_some, [values[i] for i in at])
        (parts,) = pull(list(map(_tangents.instantiated, bars)))
        for i, part in zip(at, parts, strict=True):
            found[i] = part
    return found


def jvp(function: Callable[..., Any], primals: Sequence, tangents: Sequence) -> tuple[Any, Any]:
    """Differentiate along the tangents that are not symbolically zero, as a `custom_jvp` rule does.

    Outputs without a derivative, such as integers, have symbolically zero tangents.
    """
    values, tree = jax.tree.flatten(tuple(primals))
    dots = jax.tree.leaves(tuple(tangents), is_leaf=_tangents.is_zero)
    at = [i for i, dot in enumerate(dots) if not _tangents.is_zero(dot)]
    if not at:
        return constant(function, primals)
    shown: Any = None

    def of_some(some):
        nonlocal shown
        merged = list(values)
        for i, x in zip(at, some, strict=True):
            merged[i] = x
        out, out_tree = jax.tree.flatten(function(*jax.tree.unflatten(tree, merged)))
        which = [is_inexact(x) for x in out]
        shown = out_tree, which
        changing = [x for x, is_changing in zip(out, which, strict=True) if is_changing]
        return changing, [x for x, is_changing in zip(out, which, strict=True) if not is_changing]

    some, some_dots = [values[i] for i in at], [dots[i] for i in at]
    changing, slopes, fixed = map(iter, jax.jvp(of_some, (some,), (some_dots,), has_aux=True))
    out_tree, which = shown
    out = [next(changing if is_changing else fixed) for is_changing in which]
    out_dots = [
        next(slopes) if is_changing else _tangents.symbolic_zero(x)
        for x, is_changing in zip(out, which, strict=True)
    ]
    return jax.tree.unflatten(out_tree, out), jax.tree.unflatten(out_tree, out_dots)


def constant(function: Callable[..., Any], primals: Sequence) -> tuple[Any, Any]:
    """Return the value of a function with tangents that are symbolically zero."""
    out = function(*primals)
    return out, jax.tree.map(_tangents.symbolic_zero, out)


def is_inexact(x: Any) -> bool:
    """Tell whether a value has a derivative."""
    return jnp.issubdtype(jax.typeof(x).dtype, jnp.inexact)
