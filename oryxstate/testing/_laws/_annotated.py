"""The law that fields, arguments and outputs fit their jaxtyping annotations."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from beartype.door import is_bearable

from oryxstate.testing._differences import spec
from oryxstate.testing._laws._calls import plain
from oryxstate.testing._laws._case import Case, law
from oryxstate.testing._laws._faults import Fault, NotApplicable
from oryxstate.testing._laws._walk import modules


class _Annotated(typing.NamedTuple):
    """A value with its annotation."""

    what: str
    value: Any
    hint: Any


@law
def annotations_hold(case: Case) -> None:
    """Fields, arguments and outputs are what their jaxtyping annotations say."""
    checked = 0
    for path, module in modules(case.module):
        fields = list(_fields(path, module))
        checked += len(fields)
        _expect(fields if path == "" else _one_of_stack(fields))
    call = list(_call(case))
    _expect(call)
    if not checked + len(call):
        raise NotApplicable("it has no jaxtyping annotations")


def _fields(path: str, module: Any) -> Iterator[_Annotated]:
    hints = _hints(type(module))
    for name in module.__layout__.data:
        where = f"field `{path}.{name}`".replace("`.", "`")
        if _is_checked(hints.get(name)):
            yield _Annotated(where, getattr(module, name), hints[name])


def _one_of_stack(fields: list[_Annotated]) -> list[_Annotated]:
    """Strip leading axes from the fields of a stacked module, such as one in `nn.Repeat`."""
    while _mismatch(fields):
        lengths = {jnp.shape(x)[:1] for f in fields for x in jax.tree.leaves(f.value)}
        if len(lengths) != 1 or lengths & {(), (0,)}:
            break
        fields = [f._replace(value=jax.tree.map(lambda x: x[0], f.value)) for f in fields]
    return fields


def _call(case: Case) -> Iterator[_Annotated]:
    """Return the arguments and the result of the call of one example."""
    written = _written(type(case.module))
    if written is None:
        return
    hints = _hints(written)
    args, kwargs = case.args, dict(case.kwargs)
    result = plain(case)
    if case.batched:
        args = jax.tree.map(lambda x: x[0] if isinstance(x, jax.Array | np.ndarray) else x, args)
        result = jax.tree.map(lambda y: y[0], result[0]), result[1]
    signature = inspect.signature(written)
    taken = {key: value for key, value in kwargs.items() if key in signature.parameters}
    bound = signature.bind_partial(case.module, *args, **taken).arguments
    for name, value in bound.items():
        if _is_checked(hints.get(name)):
            value = jax.tree.map(
                lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, value
            )
            yield _Annotated(f"argument `{name}`", value, hints[name])
    if _is_checked(hints.get("return")):
        both = written.__name__ == "call_and_update"
        yield _Annotated("the output", result if both else result[0], hints["return"])


def _written(cls: type) -> Any:
    """Return the method that the author of a class wrote: `call` or `call_and_update`."""
    for name in ("call", "call_and_update"):
        written = getattr(getattr(cls, name, None), "__wrapped__", None)
        if written is not None:
            return written
    return None


def _hints(annotated: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except NameError:  # an annotation names what only a type checker, or a function, knows
        return {}


def _is_checked(hint: Any) -> bool:
    """Return whether a jaxtyping annotation of arrays is in this annotation."""
    if isinstance(hint, type) and hint.__module__.startswith("jaxtyping"):
        return True
    return any(map(_is_checked, typing.get_args(hint)))


def _expect(values: Iterable[_Annotated]) -> None:
    text = _mismatch(values)
    if text:
        raise Fault(text)


def _mismatch(values: Iterable[_Annotated]) -> str:
    """Describe the first value that does not fit its annotation. Names of axes are shared."""
    before: list[str] = []
    with jaxtyping.jaxtyped("context"):
        for what, value, hint in values:
            try:
                fits = is_bearable(value, hint)
            except jaxtyping.AnnotationError:  # an axis computed from what is not known here
                continue
            shown = ", ".join(
                spec(x) if hasattr(x, "dtype") else repr(x) for x in jax.tree.leaves(value)
            )
            if not fits:
                after = f", after {'; '.join(before)}" if before else ""
                return f"{what} is annotated {_named(hint)}, but is {shown or value}{after}."
            before.append(f"{what} {_named(hint)} was {shown}")
    return ""


def _named(hint: Any) -> str:
    """Format an annotation; some JAX releases call their arrays `jaxlib._jax.Array`."""
    return re.sub(r"\b(\w+\.)+", "", hint.__name__ if isinstance(hint, type) else str(hint))
