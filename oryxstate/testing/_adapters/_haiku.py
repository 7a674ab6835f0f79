"""Adapters of functions that Haiku has transformed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.tree_util import Partial

from oryxstate import _signatures
from oryxstate.testing._adapters._adapted import Adapted, example_key, when_imported
from oryxstate.testing._adapters._functions import params_first


@when_imported("haiku", "Transformed")
def adapt_transformed(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Adapt the result of `hk.transform`; a key for its call is the keyword `rng`."""
    params = model.init(example_key(kwargs, "rng"), *args, **_own(kwargs))
    return Adapted(model, params, Partial(_call, model), label="Haiku function", name=_name(model))


@when_imported("haiku", "TransformedWithState")
def adapt_with_state(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Adapt the result of `hk.transform_with_state`."""
    values = model.init(example_key(kwargs, "rng"), *args, **_own(kwargs))
    return Adapted(
        model,
        values,
        Partial(_call_with_state, model),
        params_first,
        label="Haiku function with state",
        name=_name(model),
    )


def _call(
    model: Any, params: Any, /, *args: Any, rng: Any = None, **kwargs: Any
) -> tuple[Any, Any]:
    return model.apply(params, *_key(model, rng), *args, **kwargs), params


def _call_with_state(
    model: Any, values: Any, /, *args: Any, rng: Any = None, **kwargs: Any
) -> tuple[Any, Any]:
    params, state = values
    y, state = model.apply(params, state, *_key(model, rng), *args, **kwargs)
    return y, (params, state)


def _own(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "rng"}


def _key(model: Any, rng: Any) -> tuple[Any, ...]:
    """Return the key as an argument, unless it is a function `without_apply_rng`."""
    return (rng,) if "rng" in _signatures.signature_of(model.apply).parameters else ()


def _name(model: Any) -> str:
    function = getattr(model.init, "_original_fn", None)
    named = getattr(function, "__name__", "<")
    return "" if named.startswith("<") else named
