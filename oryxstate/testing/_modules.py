"""Strategies of the modules of a class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import jax
from hypothesis import strategies as st
from jaxtyping import Float

from oryxstate._annotations import _hints
from oryxstate._module import _construct
from oryxstate._module._base import Module
from oryxstate.nn._layer import Layer
from oryxstate.nn._rng import Rng
from oryxstate.testing import _bound, _hypothesis, _shown
from oryxstate.testing._arrays import arrays, is_array_hint, keys
from oryxstate.testing._dimensions import Scope, Sizes, scopes
from oryxstate.testing._parameters import Parameters, draw_arguments, drawn, parameters_of
from oryxstate.testing._refused import count_refused, count_taken
from oryxstate.testing._templates import CATALOGUE, templates
from oryxstate.testing._values import Drawing, draws
from oryxstate.testing._walk import descendants

M = TypeVar("M", bound=Module)

_KNOWN: dict[type, dict[str, Any]] = {Rng: {"key": keys()}}  # says no more than `jax.Array`


class Refused(NamedTuple):
    """No module: the validation of its class raised.

    Attributes:
        error: what it raised.
    """

    error: Exception


def modules(
    kind: type[M], /, *, sizes: Sizes | Mapping[str, Any] | None = None, **fields: Any
) -> st.SearchStrategy[M]:
    """Return a strategy of the modules of a class.

    Fields are drawn by their annotations, or have their defaults; modules inside likewise. Names of
    axes have one length in all fields of one module, and others in the modules inside, as for
    jaxtyping; those in `sizes` hold for these too. A class with an `__init__` of its own is called
    with arguments drawn by the annotations of that; a layer with `initialize` is made from one of
    its `templates`. Examples that `__init__` or `__post_init__` refuse with a `ValueError` or
    `TypeError` are drawn again. `st.from_type(kind)` is `modules(kind)`.

    Args:
        kind: the class; if it is abstract, its concrete subclasses; if it is generic, it may have
            its arguments, `Wrapper[Linear]`.
        sizes: lengths of axes by name; a `Sizes` shares them with other strategies.
        **fields: strategies, or values, for fields or for parameters of `__init__`.

    Raises:
        TypeError: if it is not a class of modules, or has no such field.

    Examples:
        >>> from hypothesis import find
        >>> from jaxtyping import Array, Float
        >>> import oryxstate as ox
        >>> from oryxstate.testing import code, modules
        >>> class Scale(ox.Module):
        ...     kernel: Float[Array, "n m"] = ox.param()
        ...     bias: Float[Array, "m"] = ox.param()
        ...     def call(self, x: Float[Array, "n"]) -> Float[Array, "m"]:
        ...         return x @ self.kernel + self.bias
        >>> found = find(modules(Scale), lambda scale: bool(scale.kernel.sum() > 1))
        >>> print(code(found))
        Scale(kernel=jnp.array([[2.0]], 'float32'), bias=jnp.array([0.0], 'float32'))
    """
    cls: Any = get_origin(kind) or kind
    if not (inspect.isclass(cls) and issubclass(cls, Module)):
        raise TypeError(f"modules: give a class of modules, got {cls!r}.")
    known = cls.__layout__.fields if issubclass(cls, Layer) else _parameters(cls).signature
    for name in fields:
        if name not in known:
            raise TypeError(f"modules: {_construct.unknown_field(cls, name, known)}")
    return _modules(kind, scopes(sizes), fields, {})


@st.composite
def _modules(
    draw: Any, kind: Any, scopes: st.SearchStrategy[Scope], fields: dict, failed: dict
) -> Any:
    return _draw(Drawing(draw, draw(scopes), failed), kind, fields)


@draws(Module)
def _draw_inside(drawing: Drawing, kind: Any) -> Any:
    """Draw a module in a field of another, or among the arguments of a call."""
    return _draw(drawing.inside(), kind, {})


def _draw(drawing: Drawing, kind: Any, fields: Mapping[str, Any]) -> Any:
    """Draw a module of a class, or of a generic class with its arguments."""
    cls, args = get_origin(kind) or kind, get_args(kind)
    if inspect.isabstract(cls) or cls is Module:
        cls, args = drawing.choose(_concrete(cls)), ()
    attempt = _attempt(drawing.within(cls), cls, args, {**_KNOWN.get(cls, {}), **fields})
    return drawing.draw(attempt.filter(lambda made: not isinstance(made, Refused)))


def _concrete(kind: Any) -> list[Any]:
    """Return the concrete subclasses of an abstract class."""
    if kind in (Module, Layer):
        return list(CATALOGUE)
    found = [each for each in descendants(kind) if not inspect.isabstract(each)]
    if not found:
        raise TypeError(
            f"modules: {kind.__name__} is abstract, and no class is made of it that is not. Give a "
            f"strategy: `st.register_type_strategy({kind.__name__}, ...)`."
        )
    return found


@st.composite
def _attempt(draw: Any, outer: Drawing, kind: Any, args: tuple, fields: Mapping[str, Any]) -> Any:
    """Draw a module, or how it was refused; names get their lengths only on success."""
    drawing = outer.attempt(draw)
    prepare = _prepare_layer if issubclass(kind, Layer) else _prepare
    make, how = prepare(drawing, kind, args, fields)
    try:
        module = make()
    except (TypeError, ValueError) as error:
        remedy = f"`modules({kind.__name__}, field=strategy)`"
        count_refused(drawing.failed, kind, error, remedy)
        return Refused(error)
    count_taken(drawing.failed, kind)
    outer.scope.take(drawing.scope)
    _shown.show(kind)
    if how is not None:
        _shown.remember(module, how)
    return module


def _prepare(
    drawing: Drawing, kind: Any, given: tuple, fields: Mapping[str, Any]
) -> tuple[Any, Any]:
    args, kwargs = draw_arguments(drawing, _parameters(kind, given), fields)
    how = None if kind.__generated_init__ else lambda: _shown.call(kind.__name__, args, kwargs)
    return lambda: kind(*args, **kwargs), how


def _prepare_layer(
    drawing: Drawing, kind: Any, given: tuple, fields: Mapping[str, Any]
) -> tuple[Any, Any]:
    del given  # the arguments of `initialize` are not annotated with type variables
    template, specs = drawing.draw(templates(kind))
    key = drawing.draw(keys())
    changed = {name: drawn(drawing.draw, value) for name, value in fields.items()}

    def make() -> Any:
        layer = template.init(key, *specs)
        return layer.replace(**changed) if changed else layer

    def how() -> str:
        made = _shown.call(f"{_shown.code(template)}.init", (key, *specs))
        return _shown.call(f"{made}.replace", (), changed) if changed else made

    return make, how


def _parameters(kind: Any, given: tuple = ()) -> Parameters:
    """Return the parameters of the constructor of a class with these type arguments."""
    name = kind.__name__
    remedy = f"`modules({name}, {{}}=strategy)`"
    found = parameters_of(kind.__init__, name, remedy, kind, given).without("self")
    if not kind.__generated_init__:
        return found
    known = _hints.of_fields(kind, given)
    hints = {field: _for_kind(kind, field, hint) for field, hint in known.items()}
    return found._replace(hints=hints)


def _for_kind(kind: Any, field: str, hint: Any) -> Any:
    """Narrow the annotation of a learned array to floats, unless it says otherwise."""
    info = kind.__layout__.infos.get(field)
    learned = info is not None and (info.is_param or info.is_child)
    return Float[jax.Array, "..."] if learned and hint is jax.Array else hint


def _resolve(hint: Any) -> st.SearchStrategy[Any] | None:
    """Return the strategy for `st.from_type` of a module class or an annotation of arrays."""
    kind = get_origin(hint) or hint
    if inspect.isclass(kind) and issubclass(kind, Module):
        return modules(hint)
    return arrays(hint) if is_array_hint(hint) and isinstance(hint, type) else None


_bound.OWN_NAMES.append(Module)
_hypothesis.resolve_types("oryxstate", _resolve)
