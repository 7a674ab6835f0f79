"""The differentiated function: a weighted sum of all outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _grad
from oryxstate._errors import EffectError
from oryxstate.testing._laws._faults import NotApplicable, gist

PARTS = "the gradient of the module", "the gradient of the arguments"


class Slope(NamedTuple):
    """The value and gradient of a call.

    Attributes:
        value: the value of the loss.
        result: the result of the call.
        gradient: with respect to the module and the inputs, None for what has none.
    """

    value: jax.Array
    result: tuple[Any, Any]
    gradient: tuple[Any, Any]


Partition = Callable[[Any], tuple[Any, Any]]


def split(
    module: Any,
    inputs: Any,
    partition: Partition = _grad.partition,
    *,
    with_state: bool = False,
) -> tuple[Any, Any]:
    """Split the arrays of a call into `(at, rest)`: inexact ones, and all others.

    Args:
        module: the module.
        inputs: the arguments.
        partition: splits the module into what it learns and the rest.
        with_state: whether inexact state belongs to the former.

    Raises:
        NotApplicable: if there are none.
    """
    params, state = eqx.partition(module, eqx.is_inexact_array) if with_state else partition(module)
    floats, others = eqx.partition(inputs, eqx.is_inexact_array_like)
    if not jax.tree.leaves((params, floats)):
        raise NotApplicable("neither params nor arguments are floating-point numbers")
    return (params, floats), (state, others)


def loss(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function `(at, rest) -> (loss, result)` of a call."""

    def weigh(at: Any, rest: Any) -> tuple[jax.Array, Any]:
        module, inputs = _grad.merge(at[0], rest[0]), eqx.combine(at[1], rest[1])
        result = run(module, inputs)
        total = jnp.zeros((), jnp.result_type(float))
        for y in jax.tree.leaves(result[0]):
            if jnp.issubdtype(jnp.result_type(y), jnp.inexact):
                total = total + _weighed(jnp.asarray(y), total.dtype)
        return total, result

    return weigh


def _weighed(y: jax.Array, dtype: Any) -> jax.Array:
    parts = (y.real, y.imag) if jnp.iscomplexobj(y) else (y,)
    weights = np.random.default_rng(0).normal(size=(len(parts), *y.shape)) + 0.1
    sums = [
        jnp.sum(jnp.asarray(w, dtype) * p.astype(dtype))
        for w, p in zip(weights, parts, strict=True)
    ]
    return sum(sums[1:], sums[0])


def gradient(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return the loss of a call with its gradient: `((loss, result), gradient)`."""
    return jax.value_and_grad(loss(run), has_aux=True)


def differentiated(derivative: Callable[..., Any], at: Any, rest: Any) -> Slope:
    """Evaluate `gradient`, jitted, and refuse a loss without one.

    Raises:
        NotApplicable: if JAX cannot differentiate it in reverse, as a loop of unknown length.
    """
    try:
        (value, result), gradient = derivative(at, rest)
    except EffectError:
        raise
    except Exception as error:
        raise NotApplicable(f"it cannot be differentiated: {gist(error)}") from error
    outputs = jax.tree.leaves(result[0])
    if not any(jnp.issubdtype(jnp.result_type(y), jnp.inexact) for y in outputs):
        raise NotApplicable("no output is a floating-point number")
    return Slope(value, result, gradient)
