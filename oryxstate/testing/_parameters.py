"""Arguments of a function, drawn by the annotations of its parameters."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st

from oryxstate import _signatures
from oryxstate._annotations import _hints
from oryxstate.testing._bound import bind_all
from oryxstate.testing._values import (
    UNSAID,
    Drawing,
    NoStrategy,
    Place,
    draw_value,
    draws,
    says_nothing,
)


class Parameters(NamedTuple):
    """The parameters of a function, with their names for messages.

    Attributes:
        signature: by name, without `self`.
        hints: their annotations, evaluated.
        owner: the name of the function, such as "`Net.call`".
        remedy: how to give a strategy for one of them, with a place for its name.
    """

    signature: dict[str, inspect.Parameter]
    hints: Mapping[str, Any]
    owner: str
    remedy: str

    def place(self, name: str) -> Place:
        """Return the name of a parameter for messages."""
        return Place(f"`{name}` of {self.owner}", self.remedy.format(name))

    def without(self, *names: str) -> Parameters:
        """Leave out some parameters."""
        rest = {n: p for n, p in self.signature.items() if n not in names}
        return self._replace(signature=rest)


def parameters_of(
    function: Callable[..., Any], owner: str, remedy: str, kind: Any = None, args: tuple = ()
) -> Parameters:
    """Return the parameters of a function, or of a method of `kind[args]`, with `self`."""
    signature = dict(_signatures.signature_of(function).parameters)
    return Parameters(signature, _hints.of_function(function, kind, args), owner, remedy)


def draw_arguments(
    drawing: Drawing, parameters: Parameters, given: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Draw positional and keyword arguments that share names of axes.

    Args:
        drawing: what to draw with.
        parameters: of the function.
        given: strategies or values for some of them, by name. These are drawn first, so that the
            others can match them.

    Raises:
        NoStrategy: if the annotation of a parameter without a default does not say what it takes.
    """
    known = {name: drawn(drawing.draw, value) for name, value in given.items()}
    bind_all([(parameters.hints.get(name), value) for name, value in known.items()], drawing.scope)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, parameter in parameters.signature.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name in known:
            variable = parameter.kind is parameter.VAR_POSITIONAL
            values = list(known[name]) if variable else [known[name]]
        else:
            values = _some(drawing, parameters, name)
        drawing.scope.arguments.update((name, value) for value in values)
        if parameter.kind is parameter.KEYWORD_ONLY:
            kwargs.update((name, value) for value in values)
        else:
            args.extend(values)
    return tuple(args), kwargs


def drawn(draw: Any, value: Any) -> Any:
    """Return a given value, or draw one from a given strategy."""
    return draw(value) if isinstance(value, st.SearchStrategy) else value


def _some(drawing: Drawing, parameters: Parameters, name: str) -> list[Any]:
    """Draw values of a parameter: several for `*args`, none for a keyword left at its default."""
    parameter, place = parameters.signature[name], parameters.place(name)
    hint = parameters.hints.get(name, parameter.empty)
    if parameter.kind is parameter.VAR_POSITIONAL:
        if says_nothing(hint):
            raise place.error(UNSAID)
        return [draw_value(drawing, hint, place) for _ in range(drawing.draw(st.integers(0, 2)))]
    if parameter.default is parameter.empty:
        return [draw_value(drawing, hint, place)]
    default = [] if parameter.kind is parameter.KEYWORD_ONLY else [parameter.default]
    if name == "name" or not drawing.draw(st.booleans()):
        return default
    try:
        return [draw_value(drawing, hint, place)]
    except NoStrategy:
        return default


@draws(object)
def _draw_plain(drawing: Drawing, hint: Any) -> Any:
    """Draw a dataclass, an Equinox module, a NamedTuple or a TypedDict, in the same scope."""
    kind, given = typing.get_origin(hint) or hint, typing.get_args(hint)
    hints = _hints.of_fields(kind, given)
    if typing.is_typeddict(kind):
        signature = {name: _keyword(kind, name, hint) for name, hint in hints.items()}
    else:
        signature = dict(_signatures.signature_of(kind).parameters)
        hints = hints | _hints_of_init(kind, given)
    remedy = f"`st.register_type_strategy({kind.__name__}, ...)`"
    args, kwargs = draw_arguments(
        drawing, Parameters(signature, hints, f"`{kind.__name__}`", remedy), {}
    )
    return kind(*args, **kwargs)


def _hints_of_init(kind: Any, given: tuple[Any, ...]) -> dict[str, Any]:
    """Evaluate annotations of an `__init__` that differ from those of the fields.

    Where they do not, the fields know more: type arguments, and where the class was defined.
    """
    said = _signatures.annotations_of(inspect.unwrap(kind.__init__))
    fields: dict[str, Any] = {}
    for owner in reversed(kind.__mro__):
        fields |= _signatures.annotations_of(owner)
    hints = _hints.of_function(kind.__init__, kind, given)
    return {name: hint for name, hint in hints.items() if said[name] != fields.get(name)}


def _keyword(kind: Any, name: str, hint: Any) -> inspect.Parameter:
    """Return the parameter that stands for a key of a TypedDict."""
    said = _hints.is_required(hint)
    required = name in kind.__required_keys__ if said is None else said
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
