"""The adapter of pairs of pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
from jax.tree_util import Partial

from oryxstate.testing._adapters._adapted import Adapted, adapt, is_inexact


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
    """A model as a pair of pure functions, for `check_module` and `laws`.

    Attributes:
        init: `(key, *args, **kwargs) -> params`, or `-> (params, state)` with `has_state`, which
            makes the arrays from the arguments of a call.
        apply: `(params, *args, **kwargs) -> output`, or `(params, state, *args, **kwargs) ->
            (output, state)`.
        has_state: whether there is state.
        name: of the model in reports.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate.testing import Functions, check_module
        >>> def init(key, x):
        ...     return {"kernel": jax.random.normal(key, (x.shape[-1], 2))}
        >>> def apply(params, x):
        ...     return jnp.tanh(x @ params["kernel"])
        >>> report = check_module(Functions(init, apply), jnp.ones(3))
        >>> "finite_gradient" in report.checked
        True
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    has_state: bool = False
    name: str = ""


@adapt.register(Functions)
def _(model: Functions, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    made = model.init(jax.random.key(0), *args, **kwargs)
    return Adapted(
        model,
        made,
        Partial(_call_with_state if model.has_state else _call, model.apply),
        params_first if model.has_state else Adapted.partition,
        label="pair of functions",
        name=model.name or getattr(model.apply, "__name__", ""),
    )


def _call(apply: Any, params: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return apply(params, *args, **kwargs), params


def _call_with_state(apply: Any, values: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    params, state = values
    y, state = apply(params, state, *args, **kwargs)
    return y, (params, state)


def params_first(values: Any) -> tuple[Any, Any]:
    """Take the floating-point arrays of `params` in `(params, *state)` for learned."""
    learned, rest = eqx.partition(values[0], is_inexact)
    state = jax.tree.map(lambda _: None, values[1:])
    return (learned, *state), (rest, *values[1:])
