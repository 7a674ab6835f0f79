"""The five functions of state: init, spec, call, update, call_and_update.

Each dispatches on its first argument; other files register functions, tuples, lists and layers.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import jax

from oryxstate import _tree
from oryxstate._effects import _trace
from oryxstate._module import _pytree, _takes
from oryxstate._module._base import Module
from oryxstate._module._call import completing

T = TypeVar("T")
M = TypeVar("M", bound=Module)
M_co = TypeVar("M_co", bound=Module, covariant=True)

if TYPE_CHECKING:  # a type checker does not see through `singledispatch`

    class _CallAndUpdate(Protocol):
        register: Any
        dispatch: Any

        @overload
        def __call__(
            self, obj: types.MethodType, /, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any]: ...
        @overload
        def __call__(self, obj: T, /, *args: Any, **kwargs: Any) -> tuple[Any, T]: ...

    class _Call(Protocol):
        register: Any
        dispatch: Any

        def __call__(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any: ...

    class _Update(Protocol):
        register: Any
        dispatch: Any

        def __call__(self, obj: T, /, *args: Any, **kwargs: Any) -> T: ...

    class _Template(Protocol[M_co]):
        def init(self, key: Any, *inputs: Any, name: str | None = None) -> M_co: ...

    class _Init(Protocol):
        register: Any

        @overload
        def __call__(self, obj: M, /, *, name: str | None = None) -> Callable[..., M]: ...
        @overload
        def __call__(
            self, obj: _Template[M], /, *, name: str | None = None
        ) -> Callable[..., M]: ...
        @overload
        def __call__(self, obj: Any, /, *, name: str | None = None) -> Callable[..., Any]: ...

    def _call_and_update(function: Any) -> _CallAndUpdate: ...

    class _Spec(Protocol):
        register: Any

        def __call__(self, obj: Any, /) -> Callable[..., Any]: ...

    def _call(function: Any) -> _Call: ...
    def _update(function: Any) -> _Update: ...
    def _init(function: Any) -> _Init: ...
    def _spec(function: Any) -> _Spec: ...
else:
    _call_and_update = _call = _update = _init = _spec = functools.singledispatch


@_call_and_update
def call_and_update(obj: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Run a model: its output, and the model with the state that the call left.

    Args:
        obj: a module; a tuple (the same arguments to each member) or a list (composition) of such;
            a function; any callable pytree that holds modules, such as an Equinox model; a bound
            method of a module, which is run instead of its `call`.
        *args: the arguments of its `call`.
        **kwargs: its keyword arguments.

    Returns:
        `(output, updated obj)`, for a method the updated module. `obj` itself does not change.
        Structure, shapes, dtypes and weak types of the updated object are those of `obj`.

    Raises:
        TypeError: if `obj` cannot be called.
        EffectError: if an update cannot be given a meaning (see `oryxstate.EffectError`).

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Counter(ox.Module):
        ...     count: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(count=self.count + 1)
        ...         return x
        >>> _, counter = ox.call_and_update(Counter(jnp.array(0)), 1.0)
        >>> int(counter.count)
        1
    """
    raise NotImplementedError  # for anything else: `_functions.py`


@call_and_update.register
def _(obj: Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return obj.call_and_update(*args, **kwargs)


@_call
def call(obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the output of `call_and_update`, and drop the update."""
    return call_and_update(obj, *args, **kwargs)[0]


@_update
def update(obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the updated object of `call_and_update`, and drop the output."""
    return call_and_update(obj, *args, **kwargs)[1]


@_init
def init(obj: Any, *, name: str | None = None) -> Callable[..., Any]:
    """Make a module of something that is not one yet.

    Args:
        obj: a function that declares variables (`oryxstate.variable`), a tuple, list or dict of
            such; a module, which is returned as it is.
        name: the name under which the module is kept if this is done inside another function.

    Returns:
        `(key, *args, **kwargs) -> module`, which runs `obj` once on these arguments.

    Raises:
        TypeError: if `obj` is not callable.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> def dense(x, init_key=None):
        ...     w = ox.variable(jax.random.normal(init_key, (x.shape[-1], 2)), name="w")
        ...     return x @ w
        >>> module = ox.init(dense)(jax.random.key(0), jnp.ones(3))
        >>> module(jnp.ones(3)).shape, module.w.shape
        ((2,), (3, 2))
    """
    raise NotImplementedError  # for anything else: `_functions.py`


@_spec
def spec(obj: Any) -> Callable[..., Any]:
    """Infer the shapes and dtypes of outputs without computing anything.

    Args:
        obj: whatever `call_and_update` or `init` take.

    Returns:
        A function from specs (`ArraySpec`, `jax.ShapeDtypeStruct`, arrays, Python scalars, or
        pytrees of them) to a pytree of `ArraySpec`.

    Examples:
        >>> import oryxstate as ox
        >>> ox.spec(lambda x, y: x @ y)(ox.ArraySpec((2, 3)), ox.ArraySpec((3, 4)))
        float32[2,4]
    """

    def infer(*specs: Any, **kwargs: Any) -> Any:
        out = jax.eval_shape(
            lambda *args: _run_once(obj, args, kwargs), *map(_tree.abstract, specs)
        )
        return _tree.make_array_spec(out)

    return infer


def _run_once(obj: Any, args: tuple, kwargs: dict) -> Any:
    with _trace.open_frame():  # what is made here is not a part of a function around it
        module = init(obj)(jax.random.key(0), *args, **kwargs)
        tree = module.__self__ if isinstance(module, types.MethodType) else module
        if "training" in _takes.taken_inside(tree):  # shapes do not depend on it
            kwargs = {"training": False, **kwargs}
        return call(module, *args, **kwargs)


# What they tell apart -----------------------------------------------------------------------------


def is_root(obj: Any) -> bool:
    """Tell whether a call is one root call: of a module, a method, or what holds modules."""
    if isinstance(obj, Module) or is_method(obj):
        return True
    return callable(obj) and is_ready(obj) and not is_model(obj)


def called(obj: Any) -> tuple[Callable[..., Any], Any, _takes.Taken]:
    """Return what such a root call runs: a function, the tree that holds modules, its keywords."""
    if is_method(obj):
        taken = _takes.taken_by(obj)
        return completing(obj.__func__, taken), obj.__self__, taken
    call = type(obj).call if isinstance(obj, Module) else obj
    return (lambda live, *a, **k: live(*a, **k)), obj, _takes.taken_by(call)


def is_method(obj: Any) -> bool:
    """Tell whether something is a method bound to a module: a way into it."""
    return isinstance(obj, types.MethodType) and _pytree.is_module(obj.__self__)


def is_ready(obj: Any) -> bool:
    """Tell whether an object needs no initialization: a pytree with arrays, a type from outside."""
    if is_model(obj):
        return True
    leaves = jax.tree.leaves(obj, is_leaf=_pytree.is_module)
    return callable(obj) and any(_pytree.is_module(leaf) or _tree.is_array(leaf) for leaf in leaves)


def is_model(obj: Any) -> bool:
    """Tell whether `call_and_update` or `call` is registered for the type of an object."""
    return is_registered(call_and_update, obj) or is_registered(call, obj)


def is_registered(function: Any, obj: Any) -> bool:
    """Tell whether one of the five functions is registered for the type of an object."""
    return function.dispatch(type(obj)) is not function.dispatch(object)
