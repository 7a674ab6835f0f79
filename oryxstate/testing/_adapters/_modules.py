"""The adapter of what `oryxstate.call_and_update` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jax.tree_util import Partial

from oryxstate import _api, _grad
from oryxstate._module._base import Module
from oryxstate._module._pytree import modules
from oryxstate.testing import _shown
from oryxstate.testing._adapters._adapted import Adapted, adapt, arrays_of
from oryxstate.testing._walk import statics


@adapt.register(Module)
def adapt_module(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Adapt a module, or what holds modules; what is not an array in it stays as it is."""
    values, rest = arrays_of(model)
    whole = not jax.tree.leaves(rest)
    return Adapted(
        model,
        model if whole else values,
        _api.call_and_update if whole else Partial(_call, rest),
        _grad.partition,
        kind="module",
        label="oryxstate module" if isinstance(model, Module) else "pytree of oryxstate modules",
        code=_shown.code(model),
        statics=statics(model),
    )


def _call(rest: Any, values: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    y, new = _api.call_and_update(eqx.combine(values, rest), *args, **kwargs)
    return y, arrays_of(new)[0]


def is_ours(model: Any) -> bool:
    """Whether `oryxstate.call_and_update` gives the calls of something a meaning of its own."""
    if type(model) in (tuple, list) or _api.is_model(model) or _api.is_method(model):
        return True
    return any(True for _ in modules(model))
