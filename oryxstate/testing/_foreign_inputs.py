"""The strategy of inputs for models of other libraries, from the annotations of their calls."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from hypothesis import strategies as st

from oryxstate._annotations import _hints
from oryxstate.testing._bound import bind_all
from oryxstate.testing._dimensions import FewSizes, scopes
from oryxstate.testing._parameters import Parameters, draw_arguments, parameters_of
from oryxstate.testing._values import Drawing

_REMEDY = "`@laws(model, inputs)`, with values of `{}` among the inputs"


def inputs_of_call(
    model: Any, examples: int | None = None
) -> st.SearchStrategy[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return a strategy of `(args, kwargs)` for a model that is called, by its annotations.

    Names of axes have the lengths that they have in the fields of the model.

    Args:
        model: a function, a method, or an instance of a class with `__call__`.
        examples: if given, each array has a first axis of this length.

    Raises:
        TypeError: if it has no annotations that say what it takes.
    """
    if not callable(model):
        raise TypeError(
            f"the inputs of a {type(model).__name__} cannot be drawn, since it has no call with "
            "annotations. Give them: `@laws(model, inputs)`, or `check_module(model, *inputs)`."
        )
    bare = inspect.unwrap(model)  # such as a function under `jax.jit`
    function = getattr(bare, "__func__", bare)
    if not inspect.isfunction(function):
        function = type(model).__call__
    owner = f"`{getattr(model, '__name__', f'{type(model).__name__}.__call__')}`"
    call = parameters_of(function, owner, _REMEDY)
    if function is not bare:
        call = call.without(next(iter(call.signature)))  # self
    return _inputs(model, call, () if examples is None else (examples,))


@st.composite
def _inputs(draw: Any, model: Any, call: Parameters, leading: tuple[int, ...]) -> Any:
    drawing = Drawing(draw, draw(scopes(FewSizes())))
    fields = _hints.of_fields(type(model)) if dataclasses.is_dataclass(model) else {}
    held = [(hint, getattr(model, name, None)) for name, hint in fields.items()]
    bind_all(held, drawing.scope)
    drawing.scope.leading = leading
    return draw_arguments(drawing, call, {})
