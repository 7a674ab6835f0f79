"""The places of a tree that a selection chooses from: its leaves, and the static fields in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from oryxstate import _tree
from oryxstate._module import _construct, _pytree

PARAM, STATE, STATIC = "param", "state", "static"


class Place(NamedTuple):
    """One leaf of a tree, or one static field of a module in it.

    Attributes:
        path: as one writes it, and as `oryxstate.named_leaves` gives it.
        kind: "param", "state" or "static".
        inside: the classes of what it stands in, the outermost first: modules and other nodes.
        value: what stands there; None where `oryxstate.partition` took a leaf out.
        is_leaf: whether it is a leaf of the pytree; a static field is not, nor is None.
    """

    path: str
    kind: str
    inside: tuple[type, ...]
    value: Any
    is_leaf: bool


def places(tree: Any) -> Iterator[Place]:
    """Yield the places of a tree. The leaves come in the order of `jax.tree.leaves`."""
    return _walk(tree, (), None, ())


def _walk(node: Any, keys: tuple, kind: str | None, inside: tuple[type, ...]) -> Iterator[Place]:
    if node is None:
        yield Place(_tree.keystr(keys), kind or PARAM, inside, None, False)
        return
    inner = children(node)
    if inner is None:
        if not _tree.is_array(node) and not _tree.is_spec(node):
            kind = STATIC  # a function or a number in an Equinox module
        yield Place(_tree.keystr(keys), kind or PARAM, inside, node, True)
        return
    inside = (*inside, type(node))
    if not _pytree.is_module(node):
        for key, child in inner:
            yield from _walk(child, keys + key, kind, inside)
        return
    layout = node.__layout__
    for name, (key, child) in zip(layout.data, inner, strict=True):
        declared = layout.infos[name].kind
        own = kind or (declared if declared in (PARAM, STATE) else None)
        yield from _walk(child, keys + key, own, inside)
    for name in layout.static:
        path = _tree.keystr((*keys, jax.tree_util.GetAttrKey(name)))
        yield Place(path, STATIC, inside, getattr(node, name), False)


def children(node: Any) -> list[tuple[tuple, Any]] | None:
    """Return the children of a node of a pytree with their keys; None for a leaf."""
    found, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda inner: inner is not node)
    return None if len(found) == 1 and found[0][1] is node else found


def nodes(
    tree: Any, keys: tuple = (), inside: tuple[type, ...] = ()
) -> Iterator[tuple[str, Any, tuple[type, ...]]]:
    """Yield the modules and containers of a tree, parents first: `(path, node, classes around)`."""
    inner = None if tree is None else children(tree)
    if inner is None:
        return
    yield _tree.keystr(keys), tree, inside
    for key, child in inner:
        yield from nodes(child, keys + key, (*inside, type(tree)))


def with_leaves(tree: Any, new: dict[int, Any]) -> Any:
    """Return the tree with other leaves, by their positions."""
    leaves, treedef = jax.tree.flatten(tree)
    return jax.tree.unflatten(treedef, [new.get(i, leaf) for i, leaf in enumerate(leaves)])


def with_statics(tree: Any, new: dict[str, Any]) -> Any:
    """Return the tree with other values in static fields, by their paths.

    Raises:
        TypeError: for a value that a static field cannot hold.
    """
    return _rebuilt(tree, (), new) if new else tree


def _rebuilt(node: Any, keys: tuple, new: dict[str, Any]) -> Any:
    inner = None if node is None else children(node)
    if inner is None:
        return node
    treedef = jax.tree.structure(node, is_leaf=lambda inner: inner is not node)
    node = jax.tree.unflatten(treedef, [_rebuilt(c, keys + key, new) for key, c in inner])
    for name in node.__layout__.static if _pytree.is_module(node) else ():
        path = _tree.keystr((*keys, jax.tree_util.GetAttrKey(name)))
        if path in new:
            value = _construct.check_value(node, name, new[path])
            node = _pytree.with_static(node, name, value)
    return node
