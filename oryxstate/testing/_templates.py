"""Strategies of layer configurations, with the inputs that the layers take."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st
from jaxtyping import Array, Float

from oryxstate._tree import ArraySpec
from oryxstate.nn._layer import Layer
from oryxstate.nn._template import Template
from oryxstate.testing import _catalogue_parts, _shown
from oryxstate.testing._arrays import arms_of, draw_spec, is_array_hint
from oryxstate.testing._catalogue import CATALOGUE, TemplateExample
from oryxstate.testing._dimensions import Scope
from oryxstate.testing._parameters import draw_arguments, parameters_of
from oryxstate.testing._refused import count_refused, count_taken
from oryxstate.testing._values import Drawing, draws
from oryxstate.testing._walk import written

_VECTOR = Float[Array, "features"]  # an input without an annotation


def templates(kind: type[Layer] | None = None) -> st.SearchStrategy[TemplateExample]:
    """Return a strategy of templates of layers, with the specs of inputs that they take.

    For layers of `oryxstate.nn` all configurations are valid. For other layers the arguments of
    `initialize` and the inputs of `call` are drawn by their annotations.

    Args:
        kind: the class of the layers; any of `oryxstate.nn` if None.

    Raises:
        TypeError: if it is not a concrete class of layers.

    Examples:
        >>> from hypothesis import find
        >>> from oryxstate import nn
        >>> from oryxstate.testing import templates
        >>> find(templates(nn.Dense), lambda example: True)
        TemplateExample(template=Dense.of(1), specs=(float32[1],))
    """
    if kind is None or kind is Layer:
        return st.one_of(*CATALOGUE.values())
    if not (inspect.isclass(kind) and issubclass(kind, Layer)) or inspect.isabstract(kind):
        raise TypeError(f"templates: give a class of layers that is not abstract, got {kind!r}.")
    if kind in CATALOGUE:
        return CATALOGUE[kind]
    return _by_annotations(kind, {})


@st.composite
def _by_annotations(draw: Any, kind: Any, failed: dict[type, Any]) -> TemplateExample:
    """Draw a template of a layer that is not in the catalogue."""
    name, drawing = kind.__name__, Drawing(draw, Scope({}), failed)
    remedy = f"`ox.init({name}.of(...))` of your own"
    config = parameters_of(kind.initialize, f"{name}.initialize", remedy)
    config = config.without(*list(config.signature)[:2])  # the key and the spec
    args, options = draw_arguments(drawing, config, {})
    try:
        template = kind.of(*args, **options)
    except (TypeError, ValueError) as error:  # what `check` refuses
        count_refused(
            failed, kind, error, f"a strategy of `TemplateExample({name}.of(...), specs)`"
        )
        reject()
    count_taken(failed, kind)
    return TemplateExample(template, tuple(_input_specs(drawing, kind)))


def _input_specs(drawing: Drawing, kind: Any) -> Iterator[ArraySpec]:
    call = parameters_of(written(kind), f"{kind.__name__}.call", "").without("self")
    for name, parameter in call.signature.items():
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty:
            continue
        hints = [hint for hint in arms_of(call.hints.get(name)) if is_array_hint(hint)]
        yield draw_spec(drawing.draw, (hints or [_VECTOR])[0], drawing.scope)


@draws(Template)
def _draw_template(drawing: Drawing, kind: Any) -> Any:
    return drawing.draw(templates()).template


for _kind in (TemplateExample, Template, ArraySpec):
    _shown.show(_kind)
del _catalogue_parts  # imported for the layers that it adds to the catalogue
