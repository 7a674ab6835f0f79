"""Tangents and cotangents, which may be symbolically zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from oryxstate import _jax


def symbolic_zero(value: Any) -> SymbolicZero:
    """Return the tangent of a constant, as rules of custom derivatives return it."""
    return SymbolicZero(jax.typeof(value).to_tangent_aval())


def is_zero(tangent: Any) -> bool:
    """Tell whether a tangent or cotangent is symbolically zero."""
    return isinstance(tangent, (_jax.Zero, SymbolicZero))


def dtype_of(tangent: Any) -> Any:
    """Return the dtype of a tangent or cotangent, also of a symbolic zero."""
    return (tangent.aval if is_zero(tangent) else jax.typeof(tangent)).dtype


def instantiated(tangent: Any) -> Any:
    """Return a tangent or cotangent as an array."""
    if not is_zero(tangent):
        return tangent
    zeros = np.zeros if tangent.aval.dtype == jax.dtypes.float0 else jnp.zeros
    return zeros(tangent.aval.shape, tangent.aval.dtype)


def public(tangent: Any) -> Any:
    """Return a tangent whose symbolic zero, if it is one, is of the kind that users' rules take."""
    return SymbolicZero(tangent.aval) if is_zero(tangent) else tangent


def internal(tangent: Any) -> Any:
    """Return a tangent whose symbolic zero, if it is one, is of the kind that rules of JAX take."""
    return _jax.Zero(tangent.aval) if is_zero(tangent) else tangent


def zero_tangent(value: Any) -> Any:
    """Return the symbolic zero tangent of a value."""
    return _jax.Zero(jax.typeof(value).to_tangent_aval())


def jvp_of(function: Callable, primals: Sequence, tangents: Sequence) -> tuple[Any, Any]:
    """`jax.jvp` of a function of arrays, in the directions that are not symbolically zero."""
    at = [i for i, dot in enumerate(tangents) if not is_zero(dot)]

    def of_some(*some):
        merged = list(primals)
        for i, x in zip(at, some, strict=True):
            merged[i] = x
        return function(*merged)

    return jax.jvp(of_some, [primals[i] for i in at], [tangents[i] for i in at])
