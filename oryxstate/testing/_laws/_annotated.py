"""The law that values fit their annotations: the check of annotations itself, run on a case."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate._annotations import _hints
from oryxstate._annotations._check import check_fields
from oryxstate._annotations._setting import check_annotations
from oryxstate._errors import AnnotationError
from oryxstate._module._pytree import modules
from oryxstate.testing._laws._calls import plain
from oryxstate.testing._laws._case import Case, law
from oryxstate.testing._laws._faults import Fault, LawError, NotApplicable
from oryxstate.testing._parameters import written


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
            plain(dataclasses.replace(case, **_as_jax(args=case.args, kwargs=case.kwargs)))
    except LawError as error:
        if isinstance(error.__cause__, AnnotationError):
            raise Fault(str(error.__cause__)) from error.__cause__
        raise


def _is_annotated(cls: type) -> bool:
    """Tell whether fields or the call of a class have annotations of jaxtyping."""
    hints = _hints.of_fields(cls) | _hints.of_function(written(cls), cls)
    return any(map(_is_of_jaxtyping, hints.values()))


def _is_of_jaxtyping(hint: Any) -> bool:
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


def _as_jax(**trees: Any) -> dict[str, Any]:
    """Make JAX's arrays of NumPy's, which annotations of `jax.Array` do not admit."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, trees)
