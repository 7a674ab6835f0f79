"""The adapter of optax's gradient transformations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.tree_util import Partial

from oryxstate.testing._adapters._adapted import Adapted, when_imported


@when_imported("optax", "GradientTransformation")
def adapt_transformation(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Adapt a gradient transformation, which is called with gradients, and with params or not."""
    if not args:
        raise TypeError(
            "a gradient transformation is called with gradients, and with params if it needs them: "
            "`check_module(optimizer, gradients, params)`."
        )

    def partition(state: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda _: None, state), state

    gradients, *rest = args
    params = rest[0] if rest else kwargs.get("params", gradients)
    return Adapted(
        model,
        model.init(params),
        Partial(_call, model.update),
        partition,
        kind="optimizer",
        label="optax gradient transformation",
        name=getattr(model.update, "__qualname__", "").partition(".")[0],
    )


def _call(update: Any, state: Any, gradients: Any, /, *rest: Any, **kwargs: Any) -> tuple[Any, Any]:
    return update(gradients, state, *rest, **kwargs)
