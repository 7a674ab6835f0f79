"""Modules as text: what `repr` shows, and the drawing of treescope."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import wadler_lindig as wl

from oryxstate._module import _foreign, _pytree


def text(module: Any, width: int = 80) -> str:
    """A module as its class and fields: arrays by dtype and shape, functions by name.

    Equal members that stand one after another in a list or a tuple are shown once, with their
    number.
    """
    return wl.pformat(module, width=width, custom=_document)


def _document(value: Any) -> Any:
    if isinstance(value, jax.Array | jax.ShapeDtypeStruct):
        weak = "weak_" if getattr(value, "weak_type", False) else ""
        return wl.array_summary(value.shape, f"{weak}{value.dtype.name}", kind=None)
    if type(value) in (list, tuple) and any(map(_pytree.is_module, value)):
        return _runs(value)
    if isinstance(value, type) or hasattr(value, "__layout__"):
        return None
    if isinstance(value, functools.partial):
        return None
    name = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(name, str) and not _foreign.is_equinox(value):
        return wl.TextDoc(f"<function {name}>")
    return None


def _runs(members: Any) -> Any:
    """The members of a list or a tuple, each run of equal ones once."""
    documents = []
    for document, run in itertools.groupby(_documents(members)):
        count = len(list(run))
        documents.append(document if count == 1 else wl.TextDoc(f"{count} x ") + document)
    begin, end = ("[", "]") if type(members) is list else ("(", ")")
    if type(members) is tuple and len(members) == 1:
        end = ",)"
    return wl.bracketed(
        begin=wl.TextDoc(begin), docs=documents, sep=wl.comma, end=wl.TextDoc(end), indent=2
    )


def _documents(members: Any) -> Iterator[Any]:
    """Yield the document of each member; that of a member like the one before is not made again.

    JAX asks for the text of a module wherever one is transformed as a function, `jax.vmap(module)`.
    """
    for _, alike in itertools.groupby(members, _likeness):
        first, *others = alike
        document = wl.pdoc(first, custom=_document, indent=2)
        yield from (document for _ in (first, *others))


def _likeness(member: Any) -> Any:
    """Equal for members that are shown in the same way."""
    leaves, structure = jax.tree.flatten(member)
    return structure, [
        (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False))
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
        else id(leaf)
        for leaf in leaves
    ]


def draw(module: Any, path: str | None, subtree: Callable[..., Any]) -> Any:
    """What treescope draws: the fields, each marked with its kind.

    Args:
        module: the module.
        path: where it stands in what is drawn.
        subtree: draws a value.
    """
    parts = importlib.import_module("treescope.rendering_parts")  # treescope asks, so it is there
    layout = module.__layout__
    shown = [name for name in layout.fields if name != "name" or module.name is not None]
    lines = [_line(parts, module, name, path, subtree, name == shown[-1]) for name in shown]
    return parts.build_foldable_tree_node_from_children(
        prefix=parts.siblings(parts.maybe_qualified_type_name(type(module)), "("),
        children=lines,
        suffix=")",
        path=path,
    )


def _line(
    parts: Any, module: Any, name: str, path: str | None, subtree: Callable[..., Any], last: bool
) -> Any:
    info = module.__layout__.infos[name]
    value = getattr(module, name)
    kind = "param" if info.is_child and isinstance(value, jax.Array) else info.kind
    comment = "" if kind == "child" else f"  # {kind}"
    inner = None if path is None else f"{path}.{name}"
    return parts.build_full_line_with_annotations(
        parts.siblings_with_annotations(f"{name}=", subtree(value, path=inner)),
        parts.siblings(
            parts.fold_condition(
                collapsed=parts.text("" if last else ", "), expanded=parts.text(",")
            ),
            parts.fold_condition(expanded=parts.comment_color(parts.text(comment))),
        ),
    )
