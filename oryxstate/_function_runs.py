"""A run of a function: its variables, the modules among them, and no key once it is initialized."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from oryxstate import _jax, _lazy, _signatures, _tree
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import FUNCTION, KEY_AXIS, Name
from oryxstate._module import _keywords, _live, _pytree

if TYPE_CHECKING:
    import equinox as eqx
else:
    eqx = _lazy.Lazy("equinox")

INNER = "()"
"""The end of the name under which a function holds what a nested `init` without a name gave."""


def name_of(field: str) -> Name:
    """The name of a variable of whatever function runs innermost."""
    return Name(FUNCTION, "", field)


@jax.tree_util.register_pytree_with_keys_class
class Whole:
    """A module that is state of a function as a whole: its arrays, as one pytree."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return eqx.tree_pformat(self.value)

    def tree_flatten_with_keys(self) -> tuple[list, Any]:
        """The arrays, under their paths in the module."""
        leaves, treedef = jax.tree_util.tree_flatten_with_path(self.value)
        return [(jax.tree_util.GetAttrKey(_tree.keystr(p)), leaf) for p, leaf in leaves], treedef

    @classmethod
    def tree_unflatten(cls, treedef: Any, leaves: Any) -> Whole:
        """The module with these arrays."""
        return cls(jax.tree.unflatten(treedef, leaves))


class _NoKey:
    """An entry of a path that one does not write: `module.w` stands for `module.params['w']`."""

    def __str__(self) -> str:
        return ""


_NO_KEY = _NoKey()


def no_key(_: Any) -> Any:
    """The entry in a path for a field of a function module."""
    return _NO_KEY


@jax.tree_util.register_pytree_with_keys_class
class Variables(dict):
    """Variables of a function by name, which in paths are its attributes."""

    def tree_flatten_with_keys(self) -> tuple[list, Any]:
        """The values in the order in which they were declared."""
        return [(jax.tree_util.GetAttrKey(name), self[name]) for name in self], tuple(self)

    def tree_flatten(self) -> tuple[list, Any]:
        """The same without paths."""
        return list(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, names: Any, values: Any) -> Variables:
        """The variables with these values."""
        return cls(zip(names, values, strict=True))


def has_module(value: Any) -> bool:
    """Whether a module stands anywhere in a pytree."""
    return any(True for _ in _pytree.modules(value))


def around() -> Modules | None:
    """The modules of the function that runs innermost, if it has variables."""
    frame = _frames.innermost_function()
    return None if frame is None else frame.modules


class Modules:
    """The modules among the variables of a running function: live, as in a root call of theirs."""

    def __init__(self, frame: _frames.Frame, keywords: dict[str, Any]):
        self._frame = frame
        self._keywords = _keywords.hold(keywords, frame)
        self._made: collections.Counter[str] = collections.Counter()
        self._live: dict[str, Any] = {}

    def close(self) -> None:
        """Let go of the modules."""
        self._live.clear()

    def fresh_name(self, kind: str, end: str = "") -> str:
        """A name for a module without one: that of its class, numbered from the second on."""
        self._made[kind] += 1
        count = self._made[kind] - 1
        return (f"{kind}_{count}" if count else kind) + end

    def hold(self, name: str, module: Any) -> None:
        """Add the state of a module, which this function declares or declared."""
        self._live[name] = _live.enter(module, self._frame, name, self._keywords)

    def declare(self, name: str, module: Any) -> Any:
        """Declare a module, all of it as one variable, and its state."""
        leaves, treedef = jax.tree.flatten(_live.detach(module))
        current = _primitives.declare(name_of(name), tuple(leaves), treedef)
        self.hold(name, jax.tree.unflatten(treedef, current))
        return self._live[name]

    def find(self, name: str) -> Any:
        """The live module of this name."""
        if name not in self._live:
            known = ", ".join(key for key in self._live if not key.endswith(INNER)) or "none"
            raise ValueError(
                f"module {name!r} was not declared when the function was initialized (declared: "
                f"{known}). Initialize it again with inputs for which it declares this module."
            )
        return self._live[name]

    def declared(self, name: str, make: Callable[[], Any]) -> Any:
        """The module of this name: that of `make` if it is declared now, else the one held."""
        return self.declare(name, make()) if self._frame.declaring else self.find(name)

    def inner(self, kind: str, make: Callable[[], Any]) -> Any:
        """The module of a nested `init` without a name; None if it has no variables."""
        name = self.fresh_name(kind, INNER)
        if not self._frame.declaring:
            return self._live.get(name)
        module = make()
        return self.declare(name, module) if module.variables() else None

    def holder(self, name: str) -> str | None:
        """The key of the nested `init` without a name that declared a variable."""
        inner = (key for key in self._live if key.endswith(INNER))
        return next((key for key in inner if name in self._live[key].variables()), None)

    def __contains__(self, name: str) -> bool:
        return name in self._live

    def assign(self, name: str, value: Any) -> Any:
        """Give a module the state of another one of its structure, and the rest if it differs.

        Returns:
            The module as it is now, live.
        """
        live = self._live[name]
        old, structure = jax.tree.flatten(live)
        avals, treedef = _frames.avals_of(tuple(old)), jax.tree.structure(_live.detach(live))
        value = _live.detach(value)
        new = _tree.conform(value, avals, treedef, f"variable {name.removesuffix(INNER)!r}")
        state = set(_pytree.state_positions(value))
        if any(a is not b for i, (a, b) in enumerate(zip(old, new, strict=True)) if i not in state):
            _primitives.write(name_of(name), new)
        pairs = zip(_pytree.modules(live), _pytree.modules(value), strict=True)
        for (_, held), (_, given) in pairs:
            for field in held.__layout__.state:
                held.assign(**{field: getattr(given, field)})
        return jax.tree.unflatten(structure, new)

    def updated(self, name: str, module: Any) -> Any:
        """A module as the function left it."""
        return _live.updated_model(module, self._frame, name)

    def detach(self, out: Any) -> Any:
        """An output without ties to this run."""
        return _live.detach(out, self._frame)


def run(function: Callable[..., Any], key: Any, args: tuple, kwargs: dict) -> Any:
    """Run a function that is being initialized, with the key if it takes one."""
    if _takes_key(function) and "init_key" not in kwargs:
        kwargs = {**kwargs, "init_key": key}
    return function(*args, **kwargs)


def run_again(function: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """Run a function that is initialized: nothing may depend on its `init_key` any more.

    The key is mapped, over one example, so that what depends on it is known by being mapped.
    """
    if not _takes_key(function) or "init_key" in kwargs:
        return function(*args, **kwargs)
    return _without(
        jax.random.key(0),
        lambda init_key: function(*args, init_key=init_key, **kwargs),
        _primitives.KEY_USED,
    )


def with_arrays(function: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """Run what makes a module, with an array for each spec among its inputs.

    Raises:
        ValueError: if a variable depends on the value of such an array.
    """
    leaves, treedef = jax.tree.flatten((args, kwargs))
    at = [i for i, leaf in enumerate(leaves) if _tree.is_spec(leaf)]
    if not at:
        return function(*args, **kwargs)

    def run(arrays: list) -> Any:
        given = list(leaves)
        for i, array in zip(at, arrays, strict=True):
            given[i] = array
        args, kwargs = jax.tree.unflatten(treedef, given)
        return function(*args, **kwargs)

    zeros = [jax.lax.full(leaves[i].shape, 0, leaves[i].dtype) for i in at]
    return _without(zeros, run, ON_VALUES)


ON_VALUES = (
    "the first value of a variable depends on values of the inputs, of which only the shapes are "
    "known here: in a chain, or where specs are given. Let it depend on shapes and `init_key`, or "
    "initialize the function alone, with arrays."
)


def _without(value: Any, function: Callable[..., Any], used: str) -> Any:
    """Run a function of a value, on which nothing that it returns may depend."""
    out: Any = None

    def body(value: Any) -> tuple:
        nonlocal out
        out = function(value)
        if any(map(_jax.is_mapped, jax.tree.leaves(out))):
            raise ValueError(used)
        return ()

    jax.vmap(body, axis_name=KEY_AXIS)(jax.tree.map(lambda x: x[None], value))
    return out


def _takes_key(function: Callable[..., Any]) -> bool:
    try:
        return "init_key" in _signatures.signature_of(function).parameters
    except (TypeError, ValueError):  # built in, without a signature
        return False
