"""The law that values fit their annotations: the check of annotations itself, run on a case."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from oryxstate import _signatures
from oryxstate._annotations import _hints
from oryxstate._annotations._check import check_fields
from oryxstate._annotations._setting import check_annotations
from oryxstate._errors import AnnotationError
from oryxstate._module._base import Module
from oryxstate._module._pytree import modules
from oryxstate.testing._laws._calls import plain
from oryxstate.testing._laws._case import Case, law
from oryxstate.testing._laws._faults import Fault, LawError, NotApplicable
from oryxstate.testing._walk import written


@law(kinds=["module"], otherwise="only annotations of oryxstate's modules are checked")
def annotations_hold(case: Case) -> None:
    """Fields, arguments and outputs are what their jaxtyping annotations say."""
    inside = list(modules(case.module))
    if not any(_is_annotated(type(module)) for _, module in inside):
        raise NotApplicable("it has no jaxtyping annotations")
    for path, module in inside:
        try:
            _check_fields(module, path)
        except AnnotationError as error:
            raise Fault(f"in `{path}`: {error}" if path else str(error)) from error
    try:
        with check_annotations():
            plain(dataclasses.replace(case, **_as_annotated(case)))
    except LawError as error:
        if isinstance(error.__cause__, AnnotationError):
            raise Fault(str(error.__cause__)) from error.__cause__
        raise


def _is_annotated(cls: type) -> bool:
    """Tell whether fields or the call of a class have annotations of jaxtyping."""
    hints = _hints.of_fields(cls) | _hints.of_function(written(cls), cls)
    return any(map(_is_of_jaxtyping, hints.values()))


def _is_of_jaxtyping(hint: Any) -> bool:
    hint = _hints.meant(hint)
    if isinstance(hint, type) and hint.__module__.startswith("jaxtyping"):
        return True
    return any(map(_is_of_jaxtyping, typing.get_args(hint)))


def _check_fields(module: Any, path: str) -> None:
    """Check the fields of a module, or of one of several that are stacked, as in `nn.Repeat`."""
    try:
        check_fields(module)
    except AnnotationError:
        lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(module)}
        if not path or len(lengths) != 1 or lengths & {(), (0,)}:
            raise
        _check_fields(jax.tree.map(lambda x: x[0], module), path)


def _as_annotated(case: Case) -> dict[str, Any]:
    """Make JAX's arrays of NumPy's in arguments whose annotations do not admit the latter."""
    kind = type(case.module)
    if not isinstance(case.module, Module):
        return {"args": _as_jax(case.args), "kwargs": _as_jax(dict(case.kwargs))}
    function = written(kind)
    hints = _hints.of_function(function, kind)
    parameters = list(_signatures.signature_of(function).parameters.values())[1:]
    names = [
        p.name
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD or p.kind is p.POSITIONAL_ONLY
    ]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)

    def fitting(name: str | None, value: Any) -> Any:
        return value if _admits_numpy(hints.get(name or "")) else _as_jax(value)

    places = [*names, *[rest] * len(case.args)][: len(case.args)]
    return {
        "args": tuple(map(fitting, places, case.args)),
        "kwargs": {name: fitting(name, value) for name, value in case.kwargs.items()},
    }


def _admits_numpy(hint: Any) -> bool:
    """Whether an array of NumPy may be, or be in, a value of this annotation."""
    hint = _hints.meant(hint)
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        hint = hint.array_type
    inner = (*typing.get_args(hint), getattr(hint, "leaftype", None))
    return hint is np.ndarray or any(part is not None and _admits_numpy(part) for part in inner)


def _as_jax(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, tree)
