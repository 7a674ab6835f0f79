"""Functions that declare variables, as modules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from oryxstate import _api, _function_runs, _tree
from oryxstate._effects import _frames, _primitives, _trace
from oryxstate._effects._names import FUNCTION
from oryxstate._function_runs import INNER, Variables, Whole, has_module, name_of, no_key
from oryxstate._module import _call, _live, _pytree, _takes
from oryxstate._module._base import Module
from oryxstate._module._fields import param, state, static

_NO_STATE = (
    "variable {name!r} is used by a function that is called as it is, which has no state to keep "
    "it. Make a module of the function, `module = ox.init(f)(key, x)`, and call that."
)


def variable(value: Any, *, name: str, key: Any = None, mode: str = "strict") -> Any:
    """Declare a variable of the function that is being initialized, or read it when it is called.

    Args:
        value: its first value, a pytree of arrays, or a module; when the function is called it only
            says which structure, shapes and dtypes are expected.
        name: its name in the function.
        key: makes the value depend on a random key in Oryx, where functions are staged and data
            dependence says what belongs to them. Here it has no effect.
        mode: "strict", the only one: two variables of one name are an error.

    Returns:
        The current value; a live module for a module; `value` itself outside any initialized
        function.

    Raises:
        ValueError: if the function declares two variables of this name, or another structure,
            shape or dtype than when it was initialized; for a name of `FunctionModule` itself.

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
    _check_mode("variable", mode, "strict")
    frame = _frames.innermost_function()
    if frame is None:
        return value
    if frame.modules is None:
        raise ValueError(_NO_STATE.format(name=name))
    check_name(name)
    if has_module(value):
        return frame.modules.declared(name, lambda: value)
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, value))
    known = _frames.Declared(treedef, _frames.avals_of(tuple(leaves)))
    held = frame.declared.setdefault(name_of(name), known).treedef
    if held != treedef:
        raise ValueError(
            f"variable {name!r} has structure {treedef}, but it had {held} when the function was "
            "initialized. The structure of a variable cannot change."
        )
    current = _primitives.declare(name_of(name), tuple(leaves), treedef)
    return jax.tree.unflatten(treedef, current)


def assign(value: Any, *, name: str, key: Any = None, mode: str = "clobber") -> Any:
    """Give a variable of the innermost initialized function a new value.

    Args:
        value: of the structure, shapes and dtypes of the variable; Python scalars are cast. For a
            module, another one of its structure: its state becomes that of the module. If the rest
            differs too, as after a step of an optimizer, the whole module is state.
        name: the name of the variable.
        key: without effect, as in `variable`.
        mode: "clobber", the only one: the last value counts.

    Returns:
        The value now held; `value` itself outside any initialized function.

    Raises:
        ValueError: if no such variable is declared, or it has another structure, shape or dtype.
    """
    _check_mode("assign", mode, "clobber")
    frame = _frames.innermost_function()
    if frame is None:
        return value
    if frame.modules is None:
        raise ValueError(_NO_STATE.format(name=name))
    if name in frame.modules:
        return frame.modules.assign(name, value)
    holder = frame.modules.holder(name)
    if holder is not None:
        value = jax.tree.map(jnp.asarray, value)
        new = frame.modules.find(holder).replace(**{name: value})
        return frame.modules.assign(holder, new).variables()[name]
    if name_of(name) not in frame.declared:
        raise ValueError(_primitives.UNDECLARED.format(field=name))
    treedef, avals = frame.declared[name_of(name)]
    leaves = _tree.conform(value, avals, treedef, f"variable {name!r}")
    return jax.tree.unflatten(treedef, _primitives.write(name_of(name), leaves))


def _check_mode(function: str, mode: str, known: str) -> None:
    if mode != known:
        raise ValueError(
            f"`ox.{function}` has no mode {mode!r}. Its only mode is {known!r}: a variable is "
            "declared once, and keeps its structure while values are assigned to it."
        )


def check_name(name: str) -> None:
    """Raise for a name that no variable of a function can have.

    Raises:
        ValueError: for a name of `FunctionModule`.
    """
    if name in _RESERVED or name.endswith(INNER):
        raise ValueError(
            f"a variable cannot be named {name!r}, since a function that is initialized has an "
            "attribute of this name. Give the variable another name."
        )


class FunctionModule(Module):
    """A function with the variables that it declared when it was initialized.

    The function is run again at every call, so shapes may vary and Python branches see real values.
    Its variables are attributes: `module.w`.

    Attributes:
        function: the function.
        params: the variables that it did not assign when it was initialized, by name.
        states: those that it assigned.
        modules: the modules among its variables, and those of nested `init`s. One without a name
            stands under the name of its function and `()`; its variables count as those of this
            function.
    """

    function: Callable[..., Any] = static()
    params: dict[str, Any] = param()
    states: dict[str, Any] = state()
    modules: dict[str, Any]
    __key__: ClassVar[Any] = staticmethod(no_key)

    @property
    def __keywords__(self) -> dict[str, bool]:
        """Those of the function, and those that modules in it take: they get them from here."""
        own = dict(_takes.taken_by(self.function).keyword_only)
        own.pop("init_key", None)
        return {**dict.fromkeys(_takes.taken_inside(self._held()), False), **own}

    def _held(self) -> dict[str, Any]:
        states = {k: v.value if type(v) is Whole else v for k, v in self.states.items()}
        return {**self.params, **states, **self.modules}

    def variables(self) -> dict[str, Any]:
        """The variables by name.

        Raises:
            ValueError: if two of them have one name.
        """
        found: dict[str, Any] = {}
        for key, value in self._held().items():
            for name, own in (value.variables() if key.endswith(INNER) else {key: value}).items():
                if name in found:
                    raise ValueError(_primitives.TWICE.format(field=name))
                found[name] = own
        return found

    def replace(self, **fields: Any) -> FunctionModule:
        """A copy with other values of variables, or another `name`."""
        own = {k: v for k, v in fields.items() if k in self.__layout__.fields}
        unknown = sorted(set(fields) - set(own) - set(self.variables()))
        if unknown:
            raise TypeError(_no_variable(self, unknown[0]))
        held = self._held()
        changed = {k: v for k, v in fields.items() if k in held}
        for key in held:
            if key.endswith(INNER):
                inner = {k: v for k, v in fields.items() if k in held[key].variables()}
                changed.update({key: held[key].replace(**inner)} if inner else {})
        return super().replace(**own, **self._parts(changed))

    def _parts(self, changed: dict[str, Any]) -> dict[str, Any]:
        """The fields in which these variables are, with their new values."""
        parts = {}
        for part in ("params", "states", "modules"):
            values = getattr(self, part)
            new = {
                k: Whole(changed[k]) if type(v) is Whole else changed[k]
                for k, v in values.items()
                if k in changed
            }
            if new:
                parts[part] = Variables({**values, **new})
        return parts

    def call_and_update(self, *args: Any, **kwargs: Any) -> tuple[Any, FunctionModule]:
        """The output, and the module with what the function assigned."""
        held, inside = self._held(), _live.full_path(self)
        with _trace.open_frame(declaring=False) as frame:
            frame.identity, frame.inside = -id(self.function), inside
            own, threaded = _split(self.function, held, kwargs)
            run = frame.modules = _function_runs.Modules(frame, threaded)
            for name, value in held.items():
                leaves, treedef = jax.tree.flatten(value)
                frame.add(name_of(name), tuple(leaves), treedef)
                if has_module(value):
                    run.hold(name, value)
            out = _function_runs.run_again(self.function, args, own)
            new = {}
            for name, value in held.items():
                variable = frame.variables[name_of(name)]
                if variable.written and name in self.modules:
                    raise ValueError(_not_state(self, name))
                base = variable.value if variable.written else value
                after = run.updated(name, base)
                if after is not value:
                    new[name] = after
            return run.detach(out), super().replace(**self._parts(new))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        values = self.variables()
        if name not in values:
            raise AttributeError(_no_variable(self, name))
        return values[name]


_RESERVED = frozenset(dir(FunctionModule)) | set(FunctionModule.__layout__.fields)


def _function_name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _split(function: Callable[..., Any], modules: Any, kwargs: dict) -> tuple[dict, dict]:
    def called() -> str:
        return f"function `{_function_name(function)}`"

    inside = functools.partial(_takes.taken_inside, modules)
    return _takes.split(_takes.taken_by(function), inside, kwargs, called)


def _no_variable(module: FunctionModule, name: str) -> str:
    known = ", ".join(module.variables()) or "none"
    return (
        f"function `{_function_name(module.function)}` has no variable {name!r} (it has: {known})"
    )


def _not_state(module: FunctionModule, name: str) -> str:
    return (
        f"function `{_function_name(module.function)}` assigned to module "
        f"{name.removesuffix(INNER)!r} other values than those of its state, but it did not "
        "when it was initialized, so they are not state of the function. Initialize it again with "
        "inputs for which it does."
    )


@_api.init.register(object)
def _init(function: Any, *, name: str | None = None) -> Callable[..., Any]:
    if _api.is_method(function) or _api.is_ready(function):
        return lambda key, *args, **kwargs: function
    if not callable(function):
        raise TypeError(
            f"cannot initialize {type(function).__name__}: {function!r} is no function or module."
        )

    def initialize(key: Any, *args: Any, **kwargs: Any) -> Any:
        def make() -> FunctionModule:
            return _function_runs.with_arrays(
                lambda *args, **kwargs: initialized(function, key, args, kwargs, name)[0],
                args,
                kwargs,
            )

        around = _function_runs.around()
        if around is None:
            return make()
        if name is not None:
            check_name(name)
            module = around.declared(name, make)
        else:
            module = around.inner(_function_name(function), make) or _bare(function)
        return _pytree.with_static(module, "function", function)  # this one sees what is around it

    return initialize


@_api.init.register
def _(obj: Module, *, name: str | None = None) -> Callable[..., Any]:
    def initialize(key: Any, *args: Any, **kwargs: Any) -> Any:
        around = _function_runs.around()
        if name is None or around is None:
            return obj if name is None else obj.replace(name=name)
        check_name(name)
        return around.declared(name, lambda: obj.replace(name=name))

    return initialize


def initialized(
    function: Any, key: Any, args: tuple, kwargs: dict | None = None, name: str | None = None
) -> tuple[FunctionModule, Any]:
    """The module of a function, and the output of the run that made it."""
    kwargs = kwargs or {}
    with _trace.open_frame(declaring=True) as frame:
        frame.identity = -id(function)
        # What a function declares does not depend on whether it trains, nor on a random key.
        taken, defaults = _takes.taken_by(function), {"training": False, _takes.RNG: key}
        own = {k: v for k, v in defaults.items() if taken.keyword_only.get(k)}
        own |= {k: v for k, v in kwargs.items() if taken.accepts(k)}
        frame.modules = _function_runs.Modules(frame, {"training": False, **kwargs})
        out = _function_runs.run(function, key, args, own)
        parts = {part: Variables() for part in ("params", "states", "modules")}
        for variable_name, variable in frame.variables.items():
            if variable_name.level == FUNCTION:
                first = jax.tree.unflatten(variable.treedef, variable.first)
                is_module = has_module(first)
                if variable.written:
                    parts["states"][variable_name.field] = Whole(first) if is_module else first
                else:
                    parts["modules" if is_module else "params"][variable_name.field] = first
        module = FunctionModule(function, **parts, name=name)
        module.variables()  # raises if two have one name
        _split(function, module, kwargs)
        return module, frame.modules.detach(out)


def _bare(function: Callable[..., Any]) -> FunctionModule:
    return FunctionModule(function, {}, {}, {})


@_api.call_and_update.register(object)
def _(obj: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    if _api.is_root(obj):
        function, tree, taken = _api.called(obj)
        return _call.root(function, tree, args, kwargs, taken=taken)
    if _api.is_registered(_api.call, obj):
        return _api.call(obj, *args, **kwargs), (
            _api.update(obj, *args, **kwargs) if _api.is_registered(_api.update, obj) else obj
        )
    if not callable(obj):
        raise TypeError(
            f"cannot call {type(obj).__name__}: {obj!r}. Give a module, a function, a tuple or "
            "list of them, or a callable pytree that holds modules."
        )
    own, _ = _split(obj, (), kwargs)
    with _trace.open_frame(declaring=False) as frame:  # without `modules`: it has no variables
        out = _function_runs.run_again(obj, args, own)
        return _live.detach(out, frame), obj
