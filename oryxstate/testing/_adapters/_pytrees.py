"""Adapters of callable pytrees: Equinox modules with their state, other classes, functions."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax

from oryxstate import _api, _tree
from oryxstate.testing import _shown
from oryxstate.testing._adapters._adapted import (
    Adapted,
    ChangedInPlace,
    NoAdapter,
    adapt,
    arrays_of,
    is_adapted,
    is_inexact,
)
from oryxstate.testing._adapters._functions import Functions
from oryxstate.testing._adapters._modules import adapt_module, is_ours


class Threaded(NamedTuple):
    """The arrays of an Equinox module that is called with a `State`.

    Attributes:
        model: those of the module.
        state: those of its state.
    """

    model: Any
    state: Any


@adapt.register(object)
def _(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    if is_adapted(model):  # since a moment ago
        return adapt(model, args, kwargs)
    if is_pair(model):
        return adapt(Functions(*model), args, kwargs)
    return _adapt_callable(model, args, kwargs)


def is_pair(model: Any) -> bool:
    """Whether something is `(init, apply)`, two functions of Python."""
    functions = types.FunctionType | types.MethodType | functools.partial
    if type(model) is not tuple or len(model) != 2 or any(map(_api.is_method, model)):
        return False
    return all(isinstance(f, functions) for f in model)


def _adapt_callable(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    if is_ours(model):
        return adapt_module(model, args, kwargs)
    if not callable(model):
        raise NoAdapter(
            f"there is no adapter for {type(model).__name__}, and it cannot be called: {model!r}. "
            "Give a model that can be called, `Functions(init, apply)`, or register an adapter: "
            "`@oryxstate.testing.adapt.register(...)`."
        )
    values, rest = arrays_of(model)
    return Adapted(
        model,
        values,
        jax.tree_util.Partial(_called, rest),
        kind="pytree",
        label=_label(model),
        name=_name(model),
        code=_code(model),
        statics=dict(_statics(model)),
    )


@adapt.register(eqx.Module)
def _(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    plain = _adapt_callable(model, args, kwargs)
    given = [*enumerate(args), *kwargs.items()]
    at = [place for place, value in given if isinstance(value, eqx.nn.State)]
    return plain if len(at) != 1 else _with_state(plain, at[0], dict(given)[at[0]])


def _with_state(plain: Adapted, at: int | str, state: Any) -> Adapted:
    """Thread the `State` among the arguments through the calls."""
    arrays, static = arrays_of(state)

    def partition(values: Threaded) -> tuple[Threaded, Threaded]:
        learned, rest = eqx.partition(values.model, is_inexact)
        return Threaded(learned, jax.tree.map(lambda _: None, values.state)), Threaded(
            rest, values.state
        )

    return dataclasses.replace(
        plain,
        values=Threaded(plain.values, arrays),
        call=jax.tree_util.Partial(_called_with_state, plain.call, static, at, plain.name),
        partition=partition,
        label=f"{plain.label} with state",
        threaded=frozenset([at]),
    )


def _called_with_state(
    call: Any, static: Any, at: int | str, name: str, values: Threaded, /, *args: Any, **kwargs: Any
) -> tuple[Any, Threaded]:
    """Call a model with its state among the arguments."""
    now = eqx.combine(values.state, static)  # a new one, since Equinox uses up the old
    if isinstance(at, int):
        args = (*args[:at], now, *args[at + 1 :])
    else:
        kwargs = {**kwargs, at: now}
    result, model = call(values.model, *args, **kwargs)
    if not (isinstance(result, tuple) and result and isinstance(result[-1], eqx.nn.State)):
        raise TypeError(
            f"{name} is called with a `State`, so it must return its output and the new "
            f"state, `return y, state`; it returned {type(result).__name__}."
        )
    *outputs, new = result
    output = outputs[0] if len(outputs) == 1 else tuple(outputs)
    return output, Threaded(model, arrays_of(new)[0])


def _called(rest: Any, values: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Call a model, and refuse a call that assigns to it."""
    model = eqx.combine(values, rest)
    before = jax.tree_util.tree_leaves_with_path(model)
    output = model(*args, **kwargs)
    after = dict(jax.tree_util.tree_leaves_with_path(model))
    for path, leaf in before:
        if path and after.get(path) is not leaf:
            raise ChangedInPlace(
                f"the call assigned to `{_tree.keystr(path)}` of the {type(model).__name__} "
                "itself. Under `jax.jit` that is lost, or leaks a tracer: return what changes."
            )
    return output, values


def _label(model: Any) -> str:
    if isinstance(model, eqx.Module):
        return "Equinox module"
    return "callable pytree" if jax.tree.leaves(arrays_of(model)[0]) else "function"


def _name(model: Any) -> str:
    return getattr(model, "__name__", type(model).__name__)


def _code(model: Any) -> str:
    """Return code that makes the model, if its fields do; else a name for it."""
    if not dataclasses.is_dataclass(model):
        named = getattr(model, "__qualname__", "<locals>")
        return "model" if "<" in named else _shown.code(model)
    fields = {f.name: getattr(model, f.name, None) for f in dataclasses.fields(model) if f.init}
    try:
        twin = type(model)(**fields)
        return _shown.code(model) if _shown.same_value(twin, model) else "model"
    except Exception:  # whatever it raises, this constructor does not rebuild the model
        return "model"


def _statics(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of static fields of the Equinox modules in a pytree, by path."""
    if not isinstance(tree, eqx.Module):
        return
    for field in dataclasses.fields(tree):
        at, value = f"{path}.{field.name}".removeprefix("."), getattr(tree, field.name, None)
        if field.metadata.get("static", False):
            yield at, value
            continue
        inside = jax.tree_util.tree_leaves_with_path(
            value, is_leaf=lambda x: isinstance(x, eqx.Module)
        )
        for key, leaf in inside:
            yield from _statics(leaf, f"{at}{jax.tree_util.keystr(key)}")
