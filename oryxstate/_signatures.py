"""Annotations and signatures, also where Python evaluates annotations only when it is asked.

From Python 3.14 (PEP 649) an annotation may name what is not defined yet, and reading it raises
`NameError`, unless one asks for forward references in the place of such names.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

_annotationlib: Any = (
    importlib.import_module("annotationlib") if sys.version_info >= (3, 14) else None
)


def annotations_of(annotated: Any) -> dict[str, Any]:
    """Return the annotations of a class or a callable itself, none that is inherited.

    Returns:
        The annotations by name: values, strings, or forward references.
    """
    if _annotationlib is None:
        return inspect.get_annotations(annotated)
    return _annotationlib.get_annotations(annotated, format=_annotationlib.Format.FORWARDREF)


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a callable, whatever its annotations name.

    Raises:
        TypeError: if it is not callable.
        ValueError: if it does not say.
    """
    if _annotationlib is None:
        return inspect.signature(function)
    options: dict[str, Any] = {"annotation_format": _annotationlib.Format.FORWARDREF}
    return inspect.signature(function, **options)
