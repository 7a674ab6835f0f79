"""Functions that declare variables, as modules."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _api, _function_runs, _tree
from oryxstate._effects import _frames, _primitives, _trace
from oryxstate._effects._names import FUNCTION, Name
from oryxstate._module import _pytree, _takes
from oryxstate._module._base import Module
from oryxstate._module._fields import param, state, static


def _name(field: str) -> Name:
    return Name(FUNCTION, "", field)


def variable(value: Any, *, name: str) -> Any:
    """Declare a variable of the function that is being initialized, or read it when it is called.

    Args:
        value: its first value, a pytree of arrays; when the function is called it only says which
            structure, shapes and dtypes are expected.
        name: its name in the function.

    Returns:
        The current value; `value` itself outside any initialized function.

    Raises:
        ValueError: if the function declares two variables of this name, or another structure,
            shape or dtype than when it was initialized.

    Examples:
        >>> import jax
        >>> import oryxstate as ox
        >>> def count(x):
        ...     n = ox.variable(0, name="n")
        ...     ox.assign(n + 1, name="n")
        ...     return x
        >>> module = ox.init(count)(jax.random.key(0), 1.0)
        >>> int(module.n), int(ox.update(module, 1.0).n)
        (0, 1)
    """
    frame = _frames.innermost_function()
    if frame is None:
        return value
    if _has_module(value):
        return frame.modules.variable(name, value)
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, value))
    held, _ = frame.declared.get(name, (treedef, ()))
    if held != treedef:
        raise ValueError(
            f"variable {name!r} has structure {treedef}, but it had {held} when the function was "
            "initialized. The structure of a variable cannot change."
        )
    frame.declared[name] = treedef, _frames.avals_of(tuple(leaves))
    current = _primitives.declare(_name(name), tuple(leaves), treedef)
    return jax.tree.unflatten(treedef, current)


def assign(value: Any, *, name: str) -> Any:
    """Give a variable of the innermost initialized function a new value.

    Args:
        value: of the structure, shapes and dtypes of the variable; Python scalars are cast.
        name: the name of the variable.

    Returns:
        The value now held; `value` itself outside any initialized function.

    Raises:
        ValueError: if no such variable is declared, or it has another structure, shape or dtype.
    """
    frame = _frames.innermost_function()
    if frame is None:
        return value
    if name not in frame.declared:
        raise ValueError(_primitives.UNDECLARED.format(field=name))
    treedef, avals = frame.declared[name]
    leaves = _tree.conform(value, avals, treedef, f"variable {name!r}")
    return jax.tree.unflatten(treedef, _primitives.write(_name(name), leaves))


def current(frame: _frames.Frame, name: str) -> Any:
    """The current value of a variable."""
    treedef, avals = frame.declared[name]
    return jax.tree.unflatten(treedef, _primitives.read(_name(name), avals))


def _has_module(value: Any) -> bool:
    return any(map(_pytree.is_module, jax.tree.leaves(value, is_leaf=_pytree.is_module)))


class FunctionModule(Module):
    """A function with the variables that it declared when it was initialized.

    The function is run again at every call, so shapes may vary and Python branches see real values.
    Its variables are attributes: `module.w`.

    Attributes:
        function: the function.
        params: the variables that it did not assign when it was initialized, by name.
        states: those that it assigned.
        modules: the modules that nested, named `init`s gave.
    """

    function: Callable[..., Any] = static()
    params: dict[str, Any] = param()
    states: dict[str, Any] = state()
    modules: dict[str, Any]

    __takes_rng__ = True

    @property
    def __keywords__(self) -> dict[str, bool]:
        """Those of the function, and those that modules in it take: they get them from here."""
        own = dict(_takes.taken_by(self.function).keyword_only)
        own.pop("init_key", None)
        return {**dict.fromkeys(_takes.taken_inside(self.modules), False), **own}

    def variables(self) -> dict[str, Any]:
        """The variables by name."""
        return {**self.params, **self.states, **self.modules}

    def replace(self, **fields: Any) -> FunctionModule:
        """A copy with other values of variables, or another `name`."""
        own = {k: v for k, v in fields.items() if k in self.__layout__.fields}
        unknown = sorted(set(fields) - set(own) - set(self.variables()))
        if unknown:
            raise TypeError(_no_variable(self, unknown[0]))
        for part in ("params", "states", "modules"):
            values = getattr(self, part)
            changed = {k: v for k, v in fields.items() if k in values}
            if changed:
                own[part] = {**values, **changed}
        return super().replace(**own)

    def call_and_update(self, *args: Any, **kwargs: Any) -> tuple[Any, FunctionModule]:
        """The output, and the module with what the function assigned."""
        modules = jax.tree.map(lambda x: x, self.modules)
        with _trace.open_frame(declaring=False) as frame:
            for name, value in {**self.params, **self.states}.items():
                leaves, treedef = jax.tree.flatten(value)
                variable = frame.add(_name(name), tuple(leaves), treedef)
                frame.declared[name] = treedef, variable.avals
            own, threaded = _split(self.function, self.modules, kwargs)
            frame.modules = _function_runs.Modules(frame, modules, threaded)
            out = _function_runs.run_again(self.function, args, own)
            new = {
                name.field: variable.value
                for name, variable in frame.variables.items()
                if variable.written and name.level == FUNCTION
            }
            new.update(frame.modules.updated())
            return frame.modules.detach(out), self.replace(**new)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        values = self.variables()
        if name not in values:
            raise AttributeError(_no_variable(self, name))
        return values[name]


def _split(function: Callable[..., Any], modules: Any, kwargs: dict) -> tuple[dict, dict]:
    def called() -> str:
        return f"function `{getattr(function, '__name__', repr(function))}`"

    inside = functools.partial(_takes.taken_inside, modules)
    return _takes.split(_takes.taken_by(function), inside, kwargs, called)


def _no_variable(module: FunctionModule, name: str) -> str:
    known = ", ".join(module.variables()) or "none"
    function = getattr(module.function, "__name__", repr(module.function))
    return f"function `{function}` has no variable {name!r} (it has: {known})"


class InlineFunction:
    """What a nested, unnamed `init` gives: its variables are those of the function around it."""

    def __init__(self, function: Callable[..., Any], frame: Any):
        self._function, self._frame = function, frame

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function; what it assigns is assigned in the function around it."""
        with self._frame.finding():
            return _function_runs.run_again(self._function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._frame.declared:
            raise AttributeError(f"the function has no variable {name!r}")
        return current(self._frame, name)


@_api.init.register(object)
def _init(function: Any, *, name: str | None = None) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(
            f"cannot initialize {type(function).__name__}: {function!r} is no function or module."
        )

    def initialize(key: Any, *args: Any, **kwargs: Any) -> Any:
        around = _frames.innermost_function()
        if around is None:
            return _initialized(function, name, key, args, kwargs)
        if name is not None:
            if not around.declaring:
                return around.modules.find(name)
            return around.modules.variable(name, _initialized(function, name, key, args, kwargs))
        if around.declaring:
            _function_runs.run(function, key, args, kwargs)
        return InlineFunction(function, around)

    return initialize


def _initialized(function: Any, name: str | None, key: Any, args: tuple, kwargs: dict) -> Any:
    with _trace.open_frame(declaring=True) as frame:
        own = {k: v for k, v in kwargs.items() if _takes.taken_by(function).accepts(k)}
        # What a function declares does not depend on whether it trains.
        frame.modules = _function_runs.Modules(frame, {}, {"training": False, **kwargs})
        _function_runs.run(function, key, args, own)
        _split(function, frame.modules.first, kwargs)
        parts: dict[str, dict[str, Any]] = {"params": {}, "states": {}}
        for variable_name, variable in frame.variables.items():
            if variable_name.level == FUNCTION:
                part = "states" if variable.written else "params"
                first = jax.tree.unflatten(variable.treedef, variable.first)
                parts[part][variable_name.field] = first
        return FunctionModule(function, **parts, modules=frame.modules.first, name=name)


@_api.call_and_update.register(types.FunctionType)
def _(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    own, _ = _split(function, (), kwargs)
    return _function_runs.run(function, jax.random.key(0), args, own), function
