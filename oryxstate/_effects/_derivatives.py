"""Functions whose outputs have a derivative of their own, and new state the natural one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _jax
from oryxstate._effects._functionalize import Values

Function = Callable[[Values, Values, Any], Any]


def with_own_derivative(
    run: Function, outputs: Function, new_state: Function, written: Values
) -> Function:
    """Combine functions of `(read, written, args)` into one with the derivatives of both.

    JAX would run only the rule where such a function is differentiated, and what it writes would
    be lost, or made twice, with it.

    Args:
        run: returns `(outputs, new state)`, computed where nothing is differentiated.
        outputs: returns the outputs, with their own derivative.
        new_state: returns the new state, with its natural derivative.
        written: the variables that are written, for their types.
    """
    has_derivative = any(is_inexact(x) for leaves in written.values() for x in leaves)

    @jax.custom_jvp
    def function(read, written, args):
        return run(read, written, args)

    def rule(primals, tangents):
        out, out_dot = jvp(outputs, primals, tangents)
        new, new_dot = (jvp if has_derivative else _constant)(new_state, primals, tangents)
        return (out, new), (out_dot, new_dot)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def jvp(function: Callable[..., Any], primals: Sequence, tangents: Sequence) -> tuple[Any, Any]:
    """Differentiate along the tangents that are not symbolically zero, as a `custom_jvp` rule does.

    Outputs without a derivative, such as integers, have symbolically zero tangents.
    """
    values, tree = jax.tree.flatten(tuple(primals))
    dots = jax.tree.leaves(tuple(tangents), is_leaf=_jax.is_zero)
    at = [i for i, dot in enumerate(dots) if not _jax.is_zero(dot)]
    if not at:
        return _constant(function, primals, tangents)
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
        next(slopes) if is_changing else _jax.symbolic_zero(x)
        for x, is_changing in zip(out, which, strict=True)
    ]
    return jax.tree.unflatten(out_tree, out), jax.tree.unflatten(out_tree, out_dots)


def _constant(function: Callable[..., Any], primals: Sequence, _: Sequence) -> tuple[Any, Any]:
    out = function(*primals)
    return out, jax.tree.map(_jax.symbolic_zero, out)


def is_inexact(x: Any) -> bool:
    """Tell whether a value has a derivative."""
    return jnp.issubdtype(x.dtype, jnp.inexact)
