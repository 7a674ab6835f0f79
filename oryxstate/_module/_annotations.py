"""Do the fields of a module, and what its call is given and returns, fit their annotations?

Asked only while `on` is set, which is all that the rest of the package looks at.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jaxtyping

from oryxstate._errors import AnnotationError
from oryxstate._module import _hints, _live, _misfits
from oryxstate._module._pytree import PLACE

VARIABLE = "ORYXSTATE_CHECK_ANNOTATIONS"

on = False  # whether annotations are checked now


# The setting ----------------------------------------------------------------------------------


def check_annotations(enabled: bool = True) -> contextlib.AbstractContextManager[None]:
    """Check annotations of modules at run time, from now on or for a `with` block.

    Fields are checked when a module is constructed and in `replace`; arguments and the return value
    of `call`, `call_and_update` and `call_batched` when they run. All names of dimensions in one
    call mean one size each, those in the annotations of the module's fields too. Classes that are
    defined already are checked as well. What JAX has traced before is not run, so not checked.

    The setting is that of the process, whichever thread changes it. Off, which it is at first, it
    costs nothing; the environment variable `ORYXSTATE_CHECK_ANNOTATIONS=1` turns it on.

    Args:
        enabled: whether to check.

    Returns:
        What ends the setting again after a `with` block. Without `with` it stays.

    Raises:
        ImportError: if beartype is not installed.

    Examples:
        >>> import jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from jaxtyping import Array, Float
        >>> class Scale(ox.Module):
        ...     scale: Float[Array, " c"] = ox.param()
        ...     def call(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        ...         return x * self.scale
        >>> with ox.check_annotations():
        ...     Scale(jnp.ones(3))(jnp.ones((2, 1)))
        Traceback (most recent call last):
            ...
        oryxstate._errors.AnnotationError: argument `x` of `Scale.call` is annotated
        Float[Array, "b c"], but got float32[2,1], with c=3. Give a value that fits, or
        mend the annotation.
    """
    if enabled:
        _misfits.beartype()
    return _Setting(enabled)


class _Setting:
    """One value of the setting; of those that have not ended the latest holds."""

    def __init__(self, enabled: bool):
        self._enabled, self._entered = enabled, False
        self._begin()

    def _begin(self) -> None:
        global on
        with _lock:
            # What nobody refers to can never end, so nothing before it will hold again.
            final = [i for i, (setting, _) in enumerate(_settings) if setting() is None]
            del _settings[: final[-1] if final else 0]
            _settings.append((weakref.ref(self), self._enabled))
            on = self._enabled

    def __enter__(self) -> None:
        if self._entered:
            self._begin()
        self._entered = True

    def __exit__(self, *_: object) -> None:
        global on
        with _lock:
            own = [i for i, (setting, _) in enumerate(_settings) if setting() is self]
            if own:  # else a later setting is final
                del _settings[own[-1]]
            on = bool(_settings) and _settings[-1][1]


_lock = threading.Lock()
_settings: list[tuple[weakref.ref[_Setting], bool]] = []


def _from_environment() -> bool:
    text = os.environ.get(VARIABLE, "")
    if text.lower() not in ("", "0", "false", "1", "true"):
        raise ValueError(f"{VARIABLE} is 1 or 0, got {text!r}.")
    return text.lower() in ("1", "true")


# The checks -----------------------------------------------------------------------------------


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
                    raise _error(f"field `{name}{found.path}` of {_named(module, of)}", found)

    _in_scope({"self": module, **{name: fields.get(name) for name in names}}, check)


def run(
    written: Callable[..., Any], module: Any, args: tuple, kwargs: dict, *, of: Any = None
) -> Any:
    """Call `written(module, *args, **kwargs)`, what an author wrote, and check all of it.

    Args:
        written: the function.
        module: its `self`.
        args: the other positional arguments.
        kwargs: the keyword arguments.
        of: the live form of a module that is a value, for its place in the model.

    Raises:
        AnnotationError: for the first argument, or the output, that does not fit.
    """
    try:
        signature = inspect.signature(written)
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
                what = f"argument `{shown}{found.path}` of {_named(module, of, function)}"
                raise _error(what, found)
        out = written(module, *args, **kwargs)
        found = _misfits.misfit(out, hints.get("return", Any))
        if found:
            what = f"the output{found.path and f' `{found.path}`'}"
            raise _error(f"{what} of {_named(module, of, function)}", found)
        return out

    return _in_scope(bound.arguments, checked)


def _arguments(signature: inspect.Signature, bound: Any) -> Iterable[tuple[str, str, Any]]:
    """The parameters that were given, each with its name in words and its value."""
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((name, f"{name}[{i}]", x) for i, x in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from ((name, key, x) for key, x in value.items())
        else:
            yield name, name, value


def _bind_fields(module: Any) -> None:
    """Let the names of dimensions mean what they mean in the fields that hold arrays."""
    hints, place = _hints.of_fields(type(module)), module.__dict__.get(PLACE)
    for name, info in module.__layout__.infos.items():
        if place is not None and name in place.treedefs:  # to read it would be an effect
            value = place.shapes(name)
        else:
            value = module.__dict__.get(name)
            if info.kind in ("static", "child") and not isinstance(value, jax.Array):
                continue
        _misfits.misfit(value, hints.get(name, Any))


def _in_scope(arguments: dict[str, Any], body: Callable[[], Any]) -> Any:
    """Run `body()` in a scope of jaxtyping's in which the names of dimensions are its own."""
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


def _named(module: Any, of: Any, function: str = "") -> str:
    kind = type(module).__name__
    path = _live.path_of(module if of is None else of)
    return (f"`{kind}.{function}`" if function else kind) + (f" at '{path}'" if path else "")


if _from_environment():
    check_annotations()
