"""Modules as pytrees: flattened and put together again as fast as Python allows.

For each class two functions are generated, as `dataclasses` does for `__init__`. Measured for four
fields they cost a third of `jax.tree_util.register_dataclass`, which also runs `__init__` on the
way back. Besides its fields an instance holds, under names no field can have,

- `AUX`: what JAX compares and hashes, `(types of static values, values, extra)`; `extra` is None
  but for modules inside a root call and those with Equinox children, for which it is an `Extra`;
- `SCOPED`: the same, instead of `AUX`, on a module that stands in a root call, live or a value;
- `PLACE`: on a live module, where its state is (see `_live.py`); its state is not in `__dict__`;
- `ROOT`: on a value that stands in a root call, the frame of that;
- `REPLACED`: on such a value, the state fields that `replace` gave it;
- `REST`: the Equinox children that are split (see `_foreign.py`), which are not in `__dict__`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from oryxstate._effects import _frames
from oryxstate._module import _foreign
from oryxstate._module._fields import Layout
from oryxstate._module._static import by_value, type_key

AUX, SCOPED, PLACE, ROOT, REST = "__aux__", "__scoped__", "__place__", "__root__", "__rest__"
REPLACED = "__replaced__"
GONE = -2  # the level of a root call that cannot be reached


class Scope(NamedTuple):
    """The place of a module in a root call.

    Attributes:
        level: of the root call.
        path: of the module in it.
        keywords: of the root call, hashable (see `_keywords.py`).
    """

    level: int
    path: str
    keywords: Any

    def __repr__(self) -> str:  # JAX prints it where two modules are not of the same structure
        return (
            f"<stands at '{self.path}' in a root call: modules at two places are never of the same "
            "structure; take their values, `ox.snapshot((a, b))`, to combine them>"
        )


class Extra(NamedTuple):
    """The rarer parts of the static data of a module."""

    scope: Scope | None
    rests: tuple[_foreign.Rest, ...]


def is_module(value: Any) -> bool:
    """Tell whether `value` is a module of this library."""
    return hasattr(type(value), "__layout__")


_TEMPLATE = """
def flatten(module):
    d = module.__dict__
    try:
        return {children}, d["__aux__"]
    except KeyError:
        return incomplete(module)

def flatten_with_keys(module):
    children, aux = flatten(module)
    return tuple(zip(keys, children)), aux

def unflatten(aux, children):
    module = new(cls)
    d = module.__dict__
    {targets} = children
    d["__aux__"] = aux
    {statics} = aux[1]
    if aux[2] is not None:
        complete(d, aux[2])
    return module
"""


_registered: set[type] = set()
_registering = threading.Lock()


def register(cls: type) -> None:
    """Register a module class with JAX, unless it is.

    This waits for the first module of the class: cloudpickle makes a class without fields and gives
    it its attributes, `__layout__` among them, afterwards.
    """
    if cls not in _registered:
        with _registering:
            if cls not in _registered:
                _register(cls, cls.__layout__)  # type: ignore[attr-defined]
                _registered.add(cls)


def _register(cls: type, layout: Layout) -> None:
    def entries(names: tuple[str, ...]) -> str:
        return "(" + "".join(f"d[{name!r}], " for name in names) + ")"

    source = _TEMPLATE.format(
        children=entries(layout.data),
        targets=entries(layout.data),
        statics=entries(layout.static),
    )
    scope: dict[str, Any] = {
        "cls": cls,
        "new": object.__new__,
        "keys": tuple(map(cls.__key__, layout.data)),
        "incomplete": _incomplete,
        "complete": _complete,
    }
    exec(source, scope)
    jax.tree_util.register_pytree_with_keys(
        cls, scope["flatten_with_keys"], scope["unflatten"], scope["flatten"]
    )


def _incomplete(module: Any) -> tuple[tuple[Any, ...], tuple]:
    """Flatten a module that stands in a root call, or has split children."""
    d, rest = module.__dict__, module.__dict__.get(REST, {})
    children = tuple(
        rest[name][0] if name in rest else getattr(module, name) for name in module.__layout__.data
    )
    aux, scope = aux_of(module), scope_of(module)
    if scope is not None:
        root = d[PLACE].frame if PLACE in d else d.get(ROOT)
        if root is not None and _frames.standing_for(root):
            root.handed_out.add(scope.path)
        else:  # another root call in which it is put together again must not answer for it
            aux = _with_scope(aux, scope._replace(level=GONE))
    return children, aux


def _complete(d: dict[str, Any], extra: Extra) -> None:
    if extra.scope is not None:
        d[SCOPED] = d.pop(AUX)
        root = _frames.at_level(extra.scope.level)
        # A root call answers for what it handed out: JAX's caches bring its structure back as an
        # equal one from an earlier call. What it did not is of another model.
        d[ROOT] = root if root is not None and extra.scope.path in root.handed_out else None
    if extra.rests:
        d[REST] = {rest.field: (d.pop(rest.field), rest) for rest in extra.rests}


def aux_of(module: Any) -> tuple:
    """Return the static data of a module."""
    d = module.__dict__
    return d[AUX] if AUX in d else d[SCOPED]


def is_sealed(module: Any) -> bool:
    """Tell whether a module is complete, and frozen since."""
    return AUX in module.__dict__ or SCOPED in module.__dict__


def scope_of(module: Any) -> Scope | None:
    """Return the place of a module in a root call, None for a plain value."""
    aux = module.__dict__.get(SCOPED)
    return None if aux is None else aux[2].scope


def _with_scope(aux: tuple, scope: Scope | None) -> tuple:
    types, values, extra = aux
    rests = () if extra is None else extra.rests
    return types, values, (Extra(scope, rests) if scope is not None or rests else None)


def value_of(module: Any) -> Any:
    """Return the module with all its data in it: a live one with the current state."""
    leaves, treedef = jax.tree.flatten(module)
    return jax.tree.unflatten(treedef, leaves)


_SAME: Any = object()


def with_data(module: Any, data: dict[str, Any], *, scope: Scope | None = _SAME) -> Any:
    """Copy a module with other data in some fields; the same object if nothing changes.

    Args:
        module: the module.
        data: the new data by field.
        scope: where the copy stands in a root call, None for nowhere; as the module unless given.
    """
    if not data and scope is _SAME:
        return module
    copy = object.__new__(type(module))
    d = copy.__dict__
    d.update(module.__dict__)
    for name in module.__layout__.cached:
        d.pop(name, None)
    rest = d.get(REST)
    if rest:
        d[REST] = rest = dict(rest)
    for name, value in data.items():
        if rest and name in rest:
            rest[name] = value, rest[name][1]
        else:
            d[name] = value
    if scope is not _SAME:
        aux = _with_scope(d.pop(AUX, None) or d.pop(SCOPED), scope)
        d[AUX if scope is None else SCOPED] = aux
        if scope is None:
            d.pop(ROOT, None)
    return copy


def with_static(module: Any, name: str, value: Any) -> Any:
    """Copy a module, live or not, with another value in a static field."""
    copy, value = object.__new__(type(module)), by_value(value)
    copy.__dict__.update(module.__dict__, **{name: value})
    _, values, extra = aux_of(module)
    i = module.__layout__.static.index(name)
    values = (*values[:i], value, *values[i + 1 :])
    aux = tuple(map(type_key, values)), values, extra
    copy.__dict__[AUX if AUX in module.__dict__ else SCOPED] = aux
    return copy


def stored(module: Any, name: str) -> Any:
    """Return what a data field holds: of a split child, its arrays."""
    rest = module.__dict__.get(REST)
    return rest[name][0] if rest and name in rest else getattr(module, name)


def modules(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield `(path, module)` for every module in a pytree, at any depth, parents first."""
    todo = [("", tree)]
    while todo:
        path, value = todo.pop()
        if is_module(value):
            yield path, value
            found = [(f".{name}", stored(value, name)) for name in value.__layout__.children]
        elif value is None or isinstance(value, jax.Array):
            continue
        else:
            leaves = jax.tree_util.tree_flatten_with_path(value, is_leaf=is_module)[0]
            found = [(jax.tree_util.keystr(key), leaf) for key, leaf in leaves if is_module(leaf)]
        todo += [((path + key).removeprefix("."), inner) for key, inner in reversed(found)]


def map_modules(function: Any, tree: Any, path: str) -> Any:
    """Apply `function(module, path)` to the outermost modules in a pytree."""
    if is_module(tree):
        return function(tree, path)
    if tree is None or isinstance(tree, jax.Array):
        return tree
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_module)
    if not any(is_module(leaf) for _, leaf in leaves):
        return tree
    new = [
        function(leaf, path + jax.tree_util.keystr(key)) if is_module(leaf) else leaf
        for key, leaf in leaves
    ]
    return jax.tree.unflatten(treedef, new)


def map_children(function: Any, module: Any, path: str) -> dict[str, Any]:
    """Return the child fields in which `function` changes a module, with their new data."""
    changed = {}
    for name in module.__layout__.children:
        old = stored(module, name)
        new = map_modules(function, old, f"{path}.{name}")
        if new is not old and not _same_leaves(old, new):
            changed[name] = new
    return changed


def _same_leaves(old: Any, new: Any) -> bool:
    pairs = zip(
        jax.tree.leaves(old, is_leaf=is_module),
        jax.tree.leaves(new, is_leaf=is_module),
        strict=True,
    )
    return all(a is b for a, b in pairs)


def has_state(module: Any) -> bool:
    """Tell whether a call of a module may update anything in it."""
    return any(
        jax.tree.leaves(getattr(inner, field))
        for _, inner in modules(module)
        for field in inner.__layout__.state
    )


def state_positions(tree: Any) -> list[int]:
    """Return the positions of the state of modules among the leaves of a pytree."""

    def marked(module: Any, path: str) -> Any:
        data = map_children(marked, module, path)
        for field in module.__layout__.state:
            data[field] = jax.tree.map(lambda _: True, getattr(module, field))
        return with_data(module, data)

    leaves = jax.tree.leaves(map_modules(marked, tree, ""))
    return [i for i, leaf in enumerate(leaves) if leaf is True]
