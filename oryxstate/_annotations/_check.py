"""Checks of a module's fields, and of the arguments and output of its call."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax

from oryxstate import _lazy, _signatures
from oryxstate._annotations import _hints, _misfits
from oryxstate._errors import AnnotationError
from oryxstate._module import _live
from oryxstate._module._pytree import PLACE

if TYPE_CHECKING:
    import jaxtyping
else:
    jaxtyping = _lazy.Lazy("jaxtyping")


def check_fields(module: Any, changed: Iterable[str] | None = None, of: Any = None) -> None:
    """Check fields of a module that is being made.

    Args:
        module: the module, its fields as they were given.
        changed: the fields that are new, all unless given; the others only say what the names of
            dimensions mean.
        of: the module of which this is a changed copy, for its place in the model.

    Raises:
        AnnotationError: for the first that does not fit.
    """
    hints, fields = _hints.of_fields(type(module)), vars(module)
    names = list(module.__layout__.fields)
    new = names if changed is None else list(changed)

    def check() -> None:
        for name in sorted(names, key=new.__contains__):  # the new ones last
            if name in hints and name in fields:
                found = _misfits.misfit(fields[name], hints[name])
                if found and name in new:
                    owner = _named(module if of is None else of)
                    raise _error(f"field `{name}{found.path}` of {owner}", found)

    _in_scope({"self": module, **{name: fields.get(name) for name in names}}, check)


def run(written: Callable[..., Any], module: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call `written(module, *args, **kwargs)`, which an author wrote, and check all of it.

    Raises:
        AnnotationError: for the first argument, or the output, that does not fit.
    """
    try:
        signature = _signatures.signature_of(written)
        bound = signature.bind(module, *args, **kwargs)
    except (TypeError, ValueError):  # no signature, or not for these arguments: as it says itself
        return written(module, *args, **kwargs)
    hints = _hints.of_function(written, type(module))
    given = list(_arguments(signature, bound))[1:]
    bound.apply_defaults()
    function = getattr(written, "__name__", "call")

    def checked() -> Any:
        _bind_fields(module)
        for name, shown, value in given:
            found = _misfits.misfit(value, hints.get(name, Any))
            if found:
                what = f"argument `{shown}{found.path}` of {_named(module, function)}"
                raise _error(what, found)
        out = written(module, *args, **kwargs)
        found = _misfits.misfit(out, hints.get("return", Any))
        if found:
            what = f"the output{found.path and f' `{found.path}`'}"
            raise _error(f"{what} of {_named(module, function)}", found)
        return out

    return _in_scope(bound.arguments, checked)


def _arguments(signature: inspect.Signature, bound: Any) -> Iterable[tuple[str, str, Any]]:
    """Yield the parameters that were given, each with its name in words and its value."""
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((name, f"{name}[{i}]", x) for i, x in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from ((name, key, x) for key, x in value.items())
        else:
            yield name, name, value


def _bind_fields(module: Any) -> None:
    """Bind the names of dimensions to the sizes that they have in the fields that hold arrays."""
    hints, place = _hints.of_fields(type(module)), module.__dict__.get(PLACE)
    for name, info in module.__layout__.infos.items():
        if place is not None and info.is_state:  # to read it would be an effect
            value = place.shapes(name)
        else:
            value = module.__dict__.get(name)
            if (info.is_static or info.is_child) and not isinstance(value, jax.Array):
                continue
        _misfits.misfit(value, hints.get(name, Any))


def _in_scope(arguments: dict[str, Any], body: Callable[[], Any]) -> Any:
    """Run `body()` in a jaxtyping scope of its own for the names of dimensions."""
    stopped: list[AnnotationError] = []

    def scoped(**_: Any) -> Any:
        try:
            return body()
        except AnnotationError as error:  # complete: jaxtyping would add the sizes of this scope
            stopped.append(error)

    names = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in arguments]
    scoped.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    out = jaxtyping.jaxtyped(scoped, typechecker=None)(**arguments)
    if stopped:
        raise stopped.pop()
    return out


def _error(what: str, found: _misfits.Misfit) -> AnnotationError:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        jaxtyping.print_bindings()  # the only way to ask
    sizes = [line for line in printed.getvalue().splitlines() if "=" in line.partition(" ")[0]]
    return AnnotationError(
        f"{what} is annotated {_misfits.show_hint(found.hint)}, but got "
        f"{_misfits.show_value(found.value)}{', with ' if sizes else ''}{', '.join(sizes)}. Give a "
        "value that fits, or mend the annotation."
    )


def _named(module: Any, function: str = "") -> str:
    kind, path = type(module).__name__, _live.path_of(module)
    return (f"`{kind}.{function}`" if function else kind) + (f" at '{path}'" if path else "")
