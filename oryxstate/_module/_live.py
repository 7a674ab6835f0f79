"""Live modules: what `self` is inside a root call.

A live module is a copy that holds everything but its state, which stays in the frame of the root.
Reading a state field asks the frame, so that it sees every earlier write; writing tells it.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, TypeVar

import jax

from oryxstate import _jax, _tree
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import Name
from oryxstate._errors import EffectError
from oryxstate._module import _keywords, _pytree
from oryxstate._module._pytree import PLACE, REPLACED, ROOT

T = TypeVar("T")

_IN_RULE = (
    "state '{name}' is written by the rule of a custom derivative, but not by the function itself. "
    "What such a function leaves is what the function writes; the writes of its rule are dropped. "
    "Write it in the function, or outside of it."
)

_REPLACED = (
    "state {fields} of the {kind} at '{path}' was given by `replace`, but what is called inside a "
    "root call starts from the state in the root. Write it, `module.assign(...)`, or call the "
    "changed value explicitly, `y, m = ox.snapshot(module).replace(...).call_and_update(x)`."
)


class Place:
    """Where the state of a live module is.

    Attributes:
        frame: that of its root call.
        path: the path of the module in it.
        keywords: those that reach the module.
        kind: the name of the module's class.
        refs: what the module carried in each state field if it came as a value (see
            `_primitives`), else None.
    """

    __slots__ = ("frame", "keywords", "kind", "path", "refs")

    def __init__(self, frame: _frames.Frame, path: str, keywords: Any, kind: str):
        self.frame, self.path, self.keywords, self.kind = frame, path, keywords, kind
        self.refs: dict[str, tuple] | None = None

    def reached_by(self, keywords: Any) -> Place:
        """Return the same place with other keywords."""
        place = Place(self.frame, self.path, keywords, self.kind)
        place.refs = self.refs
        return place

    @property
    def ended(self) -> bool:
        """Whether the root call has ended, and nothing stands for it."""
        return _frames.standing_for(self.frame) is None

    def variable(self, field: str) -> tuple[Name, _frames.Declared]:
        """Return the variable behind a state field, with its name.

        Raises:
            EffectError: if the root call cannot be reached.
        """
        name = Name(self.frame.level, self.path, field)
        if self.ended:
            text = _primitives.ENDED if self.frame.ended else _primitives.ELSEWHERE
            raise EffectError(text.format(name=name))
        return name, self.frame.declared[name]

    def _origin(self, field: str) -> tuple[tuple, int | None]:
        """Return what a read or write says of where the module is from: `(refs, identity)`.

        There is no identity if the module is an argument of a program, which JAX may use in other
        root calls too.
        """
        if self.refs is None:
            return (), self.frame.identity
        refs = self.refs.get(field, ())
        staged = not refs or any(_jax.is_staged_above(self.frame.trace, ref) for ref in refs)
        return refs, None if staged else self.frame.identity

    def read(self, field: str) -> Any:
        """Return the current value."""
        name, variable = self.variable(field)
        leaves = _primitives.read(name, variable.avals, *self._origin(field))
        return jax.tree.unflatten(variable.treedef, leaves)

    def conform(self, field: str, value: Any) -> tuple:
        """Return the leaves of a value, with the types of the field."""
        name, variable = self.variable(field)
        where = f"state '{name}' of {self.kind}"
        return _tree.conform(value, self._avals(field, variable), variable.treedef, where)

    def shapes(self, field: str) -> Any:
        """Return the current value by shape and dtype, which is known without reading it."""
        _, variable = self.variable(field)
        avals = self._avals(field, variable)
        specs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        return jax.tree.unflatten(variable.treedef, specs)

    def _avals(self, field: str, variable: _frames.Declared) -> tuple:
        refs, _ = self._origin(field)
        return _frames.avals_of(refs) if refs else variable.avals

    def write(self, field: str, leaves: tuple, reduce: Any = None) -> None:
        """Make these the current value.

        Raises:
            EffectError: if this is done by the rule of a custom derivative whose function does not.
        """
        name, _ = self.variable(field)
        holder = _frames.standing_for(self.frame)
        if holder is not None and holder is not self.frame and name not in holder.variables:
            raise EffectError(_IN_RULE.format(name=name))
        refs, identity = self._origin(field)
        _primitives.write(name, leaves, refs, reduce, identity)


def enter(tree: Any, frame: _frames.Frame, path: str = "", keywords: Any = _keywords.NONE) -> Any:
    """Return the live form of a model at `path`, its variables added to a frame."""
    add = functools.partial(_declare, frame) if frame.declaring else frame.add
    all_live = bool(_frames.captures())  # what is captured knows its path wherever it goes

    def live(module: Any, path: str) -> Any:
        path = path.removeprefix(".")
        children = _pytree.map_children(live, module, path)
        states = module.__layout__.state
        if not (states or children or module.__keywords__ or module.call_batched or all_live):
            frame.paths[id(module)] = path
            return module
        entered, values = _live(module, frame, path, keywords, children)
        place = entered.__dict__[PLACE]
        for field, (leaves, treedef) in values.items():
            add(Name(frame.level, path, field), tuple(leaves), treedef)
        _keywords.add_counter(entered, place)
        return entered

    return _pytree.map_modules(live, tree, path)


def _declare(frame: _frames.Frame, name: Name, leaves: tuple, treedef: Any) -> None:
    """Add a variable to a function that is being initialized, perhaps inside a transformation."""
    frame.declared[name] = _frames.Declared(treedef, _frames.avals_of(leaves))
    _primitives.declare(name, leaves, treedef)


def with_keywords(live: Any, keywords: _keywords.Keywords) -> Any:
    """Return a live module whose modules are reached by these keywords, before those of now."""

    def changed(module: Any, path: str) -> Any:
        children = _pytree.map_children(changed, module, path)
        scope, place = _pytree.scope_of(module), module.__dict__.get(PLACE)
        if scope is None:
            return _pytree.with_data(module, children)
        scope = scope._replace(keywords=keywords.over(scope.keywords))
        copy = _pytree.with_data(module, children, scope=scope)
        if place is not None:
            copy.__dict__[PLACE] = place.reached_by(scope.keywords)
        return copy

    return changed(live, "")


def revive(module: Any) -> Any:
    """Return the live form of a module that came across a pytree operation or a transformation."""

    def child(module: Any, _: str) -> Any:
        return module if _pytree.scope_of(module) is None else resolve(module) or module

    frame: Any = module.__dict__[ROOT]
    scope: Any = _pytree.scope_of(module)
    children = _pytree.map_children(child, module, scope.path)
    live, values = _live(module, frame, scope.path, scope.keywords, children)
    live.__dict__[PLACE].refs = {field: tuple(leaves) for field, (leaves, _) in values.items()}
    return live


def _live(
    module: Any, frame: _frames.Frame, path: str, keywords: Any, children: dict
) -> tuple[Any, dict]:
    """Return a copy without its state, and the leaves and structure of that by field."""
    scope = _pytree.Scope(frame.level, path, keywords)
    live = _pytree.with_data(module, children, scope=scope)
    live.__dict__.pop(ROOT, None)
    live.__dict__[PLACE] = Place(frame, path, keywords, type(module).__name__)
    fields = module.__layout__.state
    return live, {field: jax.tree.flatten(live.__dict__.pop(field)) for field in fields}


def updated_model(tree: Any, frame: _frames.Frame, path: str = "") -> Any:
    """Return the model with the state that its root call left; the rest is the same objects."""
    written = {name for name, variable in frame.variables.items() if variable.written}

    def updated(module: Any, path: str) -> Any:
        path = path.removeprefix(".")
        data = _pytree.map_children(updated, module, path)
        for field in module.__layout__.state:
            name = Name(frame.level, path, field)
            if name in written:
                data[field] = frame.variables[name].value
        return _pytree.with_data(module, data)

    return _pytree.map_modules(updated, tree, path) if written else tree


def detach(tree: Any, frame: _frames.Frame | None = None, *, current: bool = False) -> Any:
    """Make plain values of the modules in a pytree, which stand for nothing in this root call.

    Args:
        tree: any pytree.
        frame: that of the root call; None for all.
        current: whether the state of values too is that of now, not what they carry.
    """

    def detached(module: Any, path: str) -> Any:
        if current and REPLACED not in module.__dict__:
            module = resolve(module) or module
        if is_live(module):
            module = _pytree.value_of(module)
        data = _pytree.map_children(detached, module, path)
        scope = _pytree.scope_of(module)
        if scope is None or (frame is not None and scope.level != frame.level):
            return _pytree.with_data(module, data)
        return _pytree.with_data(module, data, scope=None)

    return _pytree.map_modules(detached, tree, "")


def snapshot(tree: T) -> T:
    """Take the plain value of a module as it is now.

    Inside a root call a module stands for its place in the model: calling it updates the model, and
    two modules are never of the same structure, since their places differ. Its snapshot is a value
    as outside any call: for `jax.tree.map` over two submodules, for a host callback, for an
    implicit solver, or to keep. What is done with it updates nothing; `call_and_update` returns
    its update.

    Args:
        tree: a module, or any pytree that holds modules.

    Returns:
        The same pytree, its modules with the state of now; outside any call, `tree` as it is.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Net(ox.Module):
        ...     weight: jax.Array
        ...     count: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(count=self.count + 1)
        ...         return self.weight * x
        >>> class Averaged(ox.Module):
        ...     a: Net
        ...     b: Net
        ...     def call(self, x):
        ...         a, b = ox.snapshot((self.a, self.b))
        ...         mean = jax.tree.map(lambda p, q: (p + q) / 2, a, b)
        ...         return ox.call(mean.replace(count=a.count), x)
        >>> a, b = Net(jnp.array(1.0), jnp.array(0)), Net(jnp.array(3.0), jnp.array(0))
        >>> float(Averaged(a, b)(5.0))
        10.0
    """
    return detach(tree, current=True)


def resolve(module: Any) -> Any:
    """Return the live form of a module that stands in a root call, else None."""
    if PLACE in module.__dict__:
        return module
    scope = _pytree.scope_of(module)
    if scope is None or _frames.standing_for(module.__dict__.get(ROOT)) is None:
        return None
    if REPLACED in module.__dict__:
        fields = ", ".join(f"`{name}`" for name in module.__dict__[REPLACED])
        kind = type(module).__name__
        raise EffectError(_REPLACED.format(fields=fields, kind=kind, path=scope.path))
    return revive(module)


def is_stray(module: Any) -> bool:
    """Tell whether a module is a value that came from a root call which cannot be reached."""
    return not is_live(module) and _pytree.scope_of(module) is not None


def path_of(module: Any) -> str:
    """Return where a module stands in its root call; empty if it is the root, or in none."""
    if PLACE in module.__dict__:
        return module.__dict__[PLACE].path
    scope = _pytree.scope_of(module)
    if scope is not None:
        return scope.path
    return known_path(module)


def full_path(module: Any) -> str:
    """Return where a module stands in the outermost model, through root calls inside calls."""
    place = module.__dict__.get(PLACE)
    frame = _frames.innermost() if place is None else place.frame
    return ".".join(filter(None, (frame.inside if frame else "", path_of(module))))


def scope(module: Any) -> Any:
    """Return the name scope of a call, a context: the last part of its path, or its class."""
    trace = _jax.current_trace()
    if _jax.evaluates(trace):
        return _NO_SCOPE
    return jax.named_scope(known_path(module).rsplit(".", 1)[-1] or type(module).__name__)


_NO_SCOPE = contextlib.nullcontext()


def known_path(module: Any) -> str:
    """Return where a module stands in its root call if that is known at once, else nothing."""
    place = module.__dict__.get(PLACE)
    if place is not None:
        return place.path
    root = _frames.innermost()
    return "" if root is None else root.paths.get(id(module), "")


def is_live(module: Any) -> bool:
    """Tell whether a module is part of a root call, by reference."""
    return PLACE in module.__dict__
