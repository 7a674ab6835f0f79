"""The five functions of state: init, spec, call, update, call_and_update.

Each dispatches on its first argument; other files register functions, tuples, lists and layers.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import equinox as eqx
import jax

from oryxstate import _tree
from oryxstate._module import _call, _pytree, _takes
from oryxstate._module._base import Module

T = TypeVar("T")
M = TypeVar("M", bound=Module)
M_co = TypeVar("M_co", bound=Module, covariant=True)

if TYPE_CHECKING:  # a type checker does not see through `singledispatch`

    class _CallAndUpdate(Protocol):
        register: Any

        @overload
        def __call__(
            self, obj: types.MethodType, /, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any]: ...
        @overload
        def __call__(self, obj: T, /, *args: Any, **kwargs: Any) -> tuple[Any, T]: ...

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
    def _init(function: Any) -> _Init: ...
else:
    _call_and_update = _init = functools.singledispatch


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
    function, tree, taken = called(obj)
    return _call.root(function, tree, args, kwargs, taken=taken)


def called(obj: Any) -> tuple[Callable[..., Any], Any, _takes.Taken]:
    """What a root call of an object runs: a function, the tree that holds modules, its keywords."""
    if not callable(obj):
        raise TypeError(
            f"cannot call {type(obj).__name__}: {obj!r}. Give a module, a function, a tuple or "
            "list of them, or a callable pytree that holds modules."
        )
    if isinstance(obj, types.MethodType) and _pytree.is_module(obj.__self__):
        taken = _takes.taken_by(obj)
        return _call.completing(obj.__func__, taken), obj.__self__, taken
    call = type(obj).call if isinstance(obj, Module) else obj
    return (lambda live, *a, **k: live(*a, **k)), obj, _takes.taken_by(call)


@call_and_update.register
def _(obj: Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return obj.call_and_update(*args, **kwargs)


def call(obj: Any, *args: Any, **kwargs: Any) -> Any:
    """The output of `call_and_update`; the update is dropped."""
    return call_and_update(obj, *args, **kwargs)[0]


def update(obj: T, *args: Any, **kwargs: Any) -> T:
    """The updated object of `call_and_update`; the output is dropped."""
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
    raise TypeError(f"cannot initialize {type(obj).__name__}: {obj!r} is no function or module")


@init.register
def _(obj: Module, *, name: str | None = None) -> Callable[..., Any]:
    module = obj if name is None else obj.replace(name=name)
    return lambda key, *args, **kwargs: module


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
    module = obj if _is_ready(obj) else init(obj)(jax.random.key(0), *args, **kwargs)
    tree = module.__self__ if isinstance(module, types.MethodType) else module
    if "training" in _takes.taken_inside(tree):  # shapes do not depend on it
        kwargs = {"training": False, **kwargs}
    return call(module, *args, **kwargs)


def _is_ready(obj: Any) -> bool:
    """Whether something is a module, ours or Equinox's, and no function to be initialized."""
    if _pytree.is_module(obj):
        return True
    if isinstance(obj, types.MethodType):
        return _pytree.is_module(obj.__self__)
    return isinstance(obj, eqx.Module) and any(map(_tree.is_array, jax.tree.leaves(obj)))
