"""What is `self` inside a root call?

A live module: a copy that holds everything but its state, which stays in the frame of the root.
Reading a state field asks the frame, so that it sees every earlier write; writing tells it.
"""

from __future__ import annotations

from typing import Any

import jax

from oryxstate import _tree
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import Name
from oryxstate._errors import EffectError
from oryxstate._module import _keywords, _pytree
from oryxstate._module._keywords import NONE, Keywords
from oryxstate._module._pytree import AUX, PLACE, ROOT

ENDED = (
    "module '{path}' ({kind}) belongs to a root call that has ended. Return the module from the "
    "call (`y, model = model.call_and_update(x)` hands back the whole updated model) instead of "
    "keeping a reference to it."
)


class Root:
    """A root call; live modules reach their frame through it."""

    def __init__(self, level: int, keywords: Keywords = NONE):
        self.level, self.keywords = level, keywords
        self.frame: Any = None  # a `_frames.Frame` from when the call begins


class Place:
    """Where the state of a live module is.

    Attributes:
        root: the root call.
        path: the path of the module in it.
        treedefs: the structure of each state field.
        refs: what the module carried in each state field if it came as a value (see
            `_primitives.read`), else empty.
    """

    __slots__ = ("kind", "path", "refs", "root", "treedefs")

    def __init__(self, root: Root, path: str, kind: str):
        self.root, self.path, self.kind = root, path, kind
        self.treedefs: dict[str, Any] = {}
        self.refs: dict[str, tuple] = {}

    def frame(self) -> _frames.Frame:
        """The frame of the root call.

        Raises:
            EffectError: if that has ended.
        """
        if self.ended:
            raise EffectError(ENDED.format(path=self.path or "root", kind=self.kind))
        return self.root.frame

    @property
    def ended(self) -> bool:
        """Whether the root call has ended, or not begun."""
        return self.root.frame is None or self.root.frame.closed

    def name(self, field: str) -> Name:
        """The variable behind a state field."""
        return Name(self.root.level, self.path, field)

    def read(self, field: str) -> Any:
        """The current value."""
        name, frame = self.name(field), self.frame()
        leaves = _primitives.read(name, frame.avals[name], self.refs.get(field, ()))
        return jax.tree.unflatten(self.treedefs[field], leaves)

    def conform(self, field: str, value: Any) -> tuple:
        """The leaves of a value, with the types of the field."""
        where = f"state '{self.name(field)}' of {self.kind}"
        return _tree.conform(value, self._avals(field), self.treedefs[field], where)

    def shapes(self, field: str) -> Any:
        """The current value by shape and dtype, which is known without reading it."""
        specs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in self._avals(field)]
        return jax.tree.unflatten(self.treedefs[field], specs)

    def _avals(self, field: str) -> tuple:
        refs = self.refs.get(field)
        return _frames.avals_of(refs) if refs else self.frame().avals[self.name(field)]

    def write(self, field: str, leaves: tuple, reduce: Any) -> None:
        """Make these the current value."""
        _primitives.write(self.name(field), leaves, self.refs.get(field, ()), reduce)


def enter(tree: Any, root: Root, path: str = "") -> tuple[Any, dict[Name, tuple]]:
    """The live form of a model at `path`, and its variables with their values."""
    values: dict[Name, tuple] = {}

    def live(module: Any, path: str) -> Any:
        path = path.removeprefix(".")
        module, place = _live(module, root, path, _pytree.map_children(live, module, path))
        if place is not None:
            for field, leaves in place.refs.items():
                values[place.name(field)] = leaves
            place.refs = {}
            values.update(_keywords.counters(module, root.keywords, root.level, path))
        return module

    return _pytree.map_modules(live, tree, path), values


def enter_value(module: Any) -> Any:
    """The live form of a module that came across a pytree operation or a transformation."""

    def live(child: Any, _: str) -> Any:
        if is_live(child) or _pytree.scope_of(child) is None:
            return child
        return enter_value(child)

    level, path, keywords = module.__dict__[AUX][2].scope
    root = Root(level, keywords)
    root.frame = module.__dict__[ROOT]
    return _live(module, root, path, _pytree.map_children(live, module, path))[0]


def _live(module: Any, root: Root, path: str, children: dict) -> tuple[Any, Place | None]:
    """A copy without its state, which the place refers to; the module itself if it has none."""
    states = module.__layout__.state
    if not (states or children or module.__keywords__ or module.call_batched):
        return module, None
    scope = _pytree.Scope(root.level, path, root.keywords)
    aux = _pytree.with_scope(module.__dict__[AUX], scope)
    live = _pytree.with_data(module, children, aux=aux)
    live.__dict__.pop(ROOT, None)
    live.__dict__[PLACE] = place = Place(root, path, type(module).__name__)
    for field in states:
        leaves, place.treedefs[field] = jax.tree.flatten(live.__dict__.pop(field))
        place.refs[field] = tuple(leaves)
    return live, place


def leave(tree: Any, root: Root, path: str = "") -> Any:
    """The model with the state that the root call left; what was not written is the same object."""
    frame = root.frame
    written = {name for name in frame.written if name.level == root.level}

    def updated(module: Any, path: str) -> Any:
        path = path.removeprefix(".")
        data = _pytree.map_children(updated, module, path)
        for field in module.__layout__.state:
            name = Name(root.level, path, field)
            if name in written:
                treedef = jax.tree.structure(module.__dict__[field])
                data[field] = jax.tree.unflatten(treedef, frame.values[name])
        return _pytree.with_data(module, data)

    return _pytree.map_modules(updated, tree, path) if written else tree


def strip(tree: Any, level: int) -> Any:
    """An output of a root call, its modules plain values that stand for nothing inside it."""

    def plain(module: Any, path: str) -> Any:
        if PLACE in module.__dict__:
            module = _pytree.value_of(module)
        data = _pytree.map_children(plain, module, path)
        scope = _pytree.scope_of(module)
        if scope is None or scope.level != level:
            return _pytree.with_data(module, data)
        out = _pytree.with_data(module, data, aux=_pytree.with_scope(module.__dict__[AUX], None))
        out.__dict__.pop(ROOT, None)
        return out

    return _pytree.map_modules(plain, tree, "")


def plain(tree: Any) -> Any:
    """Modules that are values, without the places that they stand for."""

    def without(module: Any, path: str) -> Any:
        module = _pytree.with_data(module, _pytree.map_children(without, module, path))
        aux = _pytree.with_scope(module.__dict__[AUX], None)
        return _pytree.with_data(module, {}, aux=aux)

    return _pytree.map_modules(without, tree, "")


def path_of(module: Any) -> str:
    """Where a module stands in its root call, empty if it is the root or in none."""
    if PLACE in module.__dict__:
        return module.__dict__[PLACE].path
    scope = _pytree.scope_of(module) if AUX in module.__dict__ else None
    if scope is not None:
        return scope.path
    root = _frames.root_at(_frames.level() - 1)
    model = None if root is None else root.model
    return next((path for path, other in _pytree.modules(model) if other is module), "")


def is_live(module: Any) -> bool:
    """Whether a module is part of a root call, by reference."""
    return PLACE in module.__dict__


def stands_in_root(module: Any) -> bool:
    """Whether a module that is a value stands for a place in an open root call.

    Raises:
        EffectError: if it stands for one in a call that has ended, while another is open.
    """
    scope = _pytree.scope_of(module)
    if scope is None:
        return False
    frame = module.__dict__.get(ROOT)
    if frame is not None and not frame.closed:
        return True
    if _frames.any_open():
        raise EffectError(ENDED.format(path=scope.path or "root", kind=type(module).__name__))
    return False
