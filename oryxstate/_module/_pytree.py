"""How does a module become a pytree and back, as fast as Python allows?

For each class two functions are generated, as `dataclasses` does for `__init__`. Measured for four
fields they cost a third of `jax.tree_util.register_dataclass`, which also runs `__init__` on the
way back. Besides its fields an instance holds, under names no field can have,

- `AUX`: what JAX compares and hashes, `(types of static values, values, extra)`; `extra` is None
  but for modules inside a root call and those with Equinox children, for which it is an `Extra`;
- `PLACE`: on a live module, where its state is (see `_live.py`); its state is not in `__dict__`;
- `REST`: the Equinox children that are split (see `_foreign.py`), nor are they.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import jax

from oryxstate._effects import _frames
from oryxstate._module import _foreign
from oryxstate._module._fields import Layout

AUX, PLACE, REST, ROOT = "__aux__", "__place__", "__rest__", "__root__"


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


class Extra(NamedTuple):
    """The rarer parts of the static data of a module."""

    scope: Scope | None
    rests: tuple[_foreign.Rest, ...]


def is_module(value: Any) -> bool:
    """Whether `value` is a module of this library."""
    return hasattr(type(value), "__layout__")


_TEMPLATE = """
def flatten(module):
    d = module.__dict__
    try:
        return {children}, d["__aux__"]
    except KeyError:
        return incomplete(module), d["__aux__"]

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
        "keys": tuple(jax.tree_util.GetAttrKey(name) for name in layout.data),
        "incomplete": _children,
        "complete": _complete,
    }
    exec(source, scope)
    jax.tree_util.register_pytree_with_keys(
        cls, scope["flatten_with_keys"], scope["unflatten"], scope["flatten"]
    )


def _children(module: Any) -> tuple[Any, ...]:
    """The data of a module that has some of it elsewhere: the current state, the split children."""
    rest = module.__dict__.get(REST, {})
    return tuple(
        rest[name][0] if name in rest else getattr(module, name) for name in module.__layout__.data
    )


def _complete(d: dict[str, Any], extra: Extra) -> None:
    if extra.scope is not None:
        d[ROOT] = _frames.root_at(extra.scope.level)
    if extra.rests:
        d[REST] = {rest.field: (d.pop(rest.field), rest) for rest in extra.rests}


def scope_of(module: Any) -> Scope | None:
    """The place of a module in a root call, None for a plain value."""
    extra = module.__dict__[AUX][2]
    return None if extra is None else extra.scope


def with_scope(aux: tuple, scope: Scope | None) -> tuple:
    """Static data that names another place."""
    types, values, extra = aux
    rests = () if extra is None else extra.rests
    return types, values, (Extra(scope, rests) if scope is not None or rests else None)


def value_of(module: Any) -> Any:
    """The module with all its data in it: a live one with the current state."""
    leaves, treedef = jax.tree.flatten(module)
    return jax.tree.unflatten(treedef, leaves)


def with_data(module: Any, data: dict[str, Any], *, aux: tuple | None = None) -> Any:
    """A copy of a module with other data in some fields; the same object if there is no change."""
    if not data and aux is None:
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
    if aux is not None:
        d[AUX] = aux
    return copy


def stored(module: Any, name: str) -> Any:
    """What a data field holds: of a split child, its arrays."""
    rest = module.__dict__.get(REST)
    return rest[name][0] if rest and name in rest else getattr(module, name)


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
    """The child fields of a module in which `function` changes a module, with their new data."""
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
    """Whether a call of a module may update anything in it."""
    if any(jax.tree.leaves(getattr(module, field)) for field in module.__layout__.state):
        return True
    found = []
    map_children(lambda child, _: found.append(has_state(child)) or child, module, "")
    return any(found)


def state_positions(module: Any) -> list[int]:
    """The positions of state among the leaves of a module."""

    def marked(module: Any, path: str) -> Any:
        data = map_children(marked, module, path)
        for field in module.__layout__.state:
            data[field] = jax.tree.map(lambda _: True, getattr(module, field))
        return with_data(module, data)

    leaves = jax.tree.leaves(marked(module, ""))
    return [i for i, leaf in enumerate(leaves) if leaf is True]
