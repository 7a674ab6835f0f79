"""The comparison of a value with its annotation, down to the part that does not fit.

Arrays are checked by jaxtyping, everything else by beartype. Containers are traversed here, since
beartype would look at one random element. Every value fits an annotation that cannot be checked.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _jax, _lazy, _tree
from oryxstate._annotations._hints import Unresolved, meant
from oryxstate._module import _pytree

if TYPE_CHECKING:
    import equinox as eqx
    import jaxtyping
else:
    eqx, jaxtyping = map(_lazy.Lazy, ("equinox", "jaxtyping"))

MISSING = (
    "checking annotations needs beartype. Install it, `pip install oryxstate[testing]`, or leave "
    "the checks off: no `ox.check_annotations()`, no ORYXSTATE_CHECK_ANNOTATIONS=1."
)


class Misfit(NamedTuple):
    """A part of a value that does not fit its annotation.

    Attributes:
        path: of the part in the value, as `[2]['bias']`; empty for the value itself.
        value: the part.
        hint: its annotation.
    """

    path: str
    value: Any
    hint: Any


def misfit(value: Any, hint: Any, path: str = "") -> Misfit | None:
    """Find the first part of a value that does not fit; None if it fits.

    Dimensions that have a name are bound in jaxtyping's innermost scope.
    """
    hint = meant(hint)
    if isinstance(hint, Unresolved):
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fits = any(misfit(value, one) is None for one in args)
        return None if fits else Misfit(path, value, hint)
    if origin is typing.Annotated:
        found = misfit(value, args[0], path)
        checked = found is not None or isinstance(value, jax.ShapeDtypeStruct)
        return found if checked or _fits(value, hint) else Misfit(path, value, hint)
    if isinstance(origin, type) and args:
        # What the arguments of other generic classes mean, only beartype knows.
        if origin.__module__ in ("builtins", "collections.abc") and isinstance(value, origin):
            parts = _parts(value, origin, args)
            if parts is not None:
                found = (misfit(part, inner, f"{path}[{key!r}]") for key, part, inner in parts)
                return next(filter(None, found), None)
        hint = _modern(origin, args)
    return None if _fits(value, hint) else Misfit(path, value, hint)


def _parts(value: Any, origin: type, args: tuple) -> Iterator[tuple[Any, Any, Any]] | None:
    """List the elements of a container, each with its key and its annotation."""
    if isinstance(value, dict) and len(args) == 2:
        return (
            (key, *pair) for key, x in value.items() for pair in zip((key, x), args, strict=True)
        )
    if isinstance(value, tuple) and origin is tuple and args[-1] is not Ellipsis:
        if len(args) != len(value):
            return None
        return ((i, *pair) for i, pair in enumerate(zip(value, args, strict=True)))
    if isinstance(value, list | tuple | set | frozenset) and (len(args) == 1 or origin is tuple):
        return ((i, x, args[0]) for i, x in enumerate(value))
    return None


def _modern(origin: type, args: tuple) -> Any:
    """Write `list[int]` for `typing.List[int]`, about which beartype warns."""
    try:
        return origin[args]  # type: ignore[index]
    except TypeError:
        return origin


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, jax.ShapeDtypeStruct) and isinstance(hint, type):
        if issubclass(hint, jaxtyping.AbstractArray):  # whatever holds such a shape
            hint = hint.dtype[Any, hint.dim_str]
        elif issubclass(jax.Array, hint):
            return True
    if _bearable(value, hint):
        return True
    twin = _number(value)
    return twin is not None and _bearable(twin, hint)


def _bearable(value: Any, hint: Any) -> bool:
    try:
        if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
            return isinstance(value, hint)
        return beartype()(value, hint)
    except Exception:  # no annotation of a kind that can be checked here, or of other names
        return True


def _number(value: Any) -> Any:
    """Return a Python number like the one from which JAX may have made a traced scalar."""
    if isinstance(value, _jax.Tracer) and value.shape == ():
        kind = np.dtype(value.dtype) if not _is_key(value) else None
        return None if kind is None else np.zeros((), kind).item()
    return None


def _is_key(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.extended)


@functools.cache
def beartype() -> Callable[[Any, Any], bool]:
    """Import beartype's `is_bearable` when it is first needed.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        root, door = map(importlib.import_module, ("beartype", "beartype.door"))
    except ModuleNotFoundError:
        raise ImportError(MISSING) from None
    # As type checkers do, an int is taken where a float is wanted.
    return functools.partial(door.is_bearable, conf=root.BeartypeConf(is_pep484_tower=True))


# In words -------------------------------------------------------------------------------------


def show_hint(hint: Any) -> str:
    """Show an annotation as in source code, without the modules of its names."""
    text = inspect.formatannotation(hint)
    short = re.sub(r"'[^']*'|([\w<>]+\.)+(?=\w)", lambda m: "" if m[1] else m[0], text)
    return short.replace("'", '"')


def show_value(value: Any) -> str:
    """Show a value by its type: `float32[2,3]`, `None`, `'text' (str)`, `a Dense`."""
    if _tree.is_array(value):
        numpy = "NumPy's " if isinstance(value, np.ndarray | np.generic) else ""
        return f"{numpy}{_tree.ArraySpec(value)!r}"
    if _pytree.is_module(value):
        return f"a {type(value).__name__}"
    if value is None or isinstance(value, tuple | list | dict):
        return _short(eqx.tree_pformat(value, width=10_000))
    return f"{_short(repr(value))} ({type(value).__name__})"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
