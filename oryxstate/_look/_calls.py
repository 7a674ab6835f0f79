"""What the modules of a model return, and what their calls cost, recorded during one trace."""

from __future__ import annotations

import contextlib
import re
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax

from oryxstate import _api, _tree
from oryxstate._look import _flops
from oryxstate._module import _hook, _keywords, _live, _pytree, _takes
from oryxstate._select._places import STATIC, places, with_statics

T = TypeVar("T")


class Call(NamedTuple):
    """The first call of a module.

    Attributes:
        out: the specs of what it returned; for one example inside a `vmap`, for one iteration
            inside a loop.
        flops: counts the floating-point operations of such a call.
    """

    out: Any
    flops: Callable[[], int | None]


def record(model: Any, args: tuple, kwargs: dict) -> dict[str, Call]:
    """Trace a call of a model, and return the first call of each module in it, by path.

    Args:
        model: a module or a container of modules; its arrays may be abstract.
        args: `jax.ShapeDtypeStruct`s, or pytrees of them.
        kwargs: keywords, in which there are such and static values.
    """
    recorder = _Recorder()
    arrays, static = eqx.partition((_marked(model), args, kwargs), _is_array)

    def call(arrays: Any) -> Any:
        model, args, kwargs = eqx.combine(arrays, static)
        return _api.call(model, *args, **kwargs)

    with _one_at_a_time, recorder.observing():
        out = jax.eval_shape(call, arrays)
    root = Call(_tree.make_array_spec(out), lambda: _flops.flops(call, arrays))
    return {**recorder.calls, "": root}


_one_at_a_time = threading.Lock()  # since each puts back the hooks that it found


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | jax.ShapeDtypeStruct)


class _Mark(str):
    """The name of a module, with its path, which survives every transformation with the name.

    It equals the name, so that modules of one structure stay so; the name of a module that has none
    is empty, which means the same.
    """

    path: str

    @classmethod
    def of(cls, name: str | None, path: str) -> _Mark:
        """Return the name of a module at a path."""
        mark = cls(name or "")
        mark.path = path
        return mark


def _marked(model: T) -> T:
    """Return the model, each module in it marked with its path."""
    marks = {}
    for place in places(model):
        if place.kind == STATIC and not place.is_leaf and _NAME.search(place.path):
            marks[place.path] = _Mark.of(place.value, _NAME.sub("", place.path))
    return with_statics(model, marks)


_NAME = re.compile(r"(^|\.)name$")


class _Recorder:
    """Records the first call of each marked module while it observes."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self._entered: set[str] = set()
        self._thread = threading.get_ident()

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Observe the calls of all modules in this thread."""
        made, run, run_batched = _hook.made, _hook.run, _hook.run_batched

        def observed(written: Any, module: Any, /, *args: Any, **kwargs: Any) -> Any:
            def call() -> Any:
                return run(written, module, *args, **kwargs)

            return self._recorded(call, _cost(written, module, args, kwargs), written, module)

        def observed_batched(one: Any, live: Any, args: tuple, kwargs: dict) -> Any:
            def call() -> Any:
                return run_batched(one, live, args, kwargs)

            return self._recorded(call, _cost_batched(live, args, kwargs), one, live)

        _hook.observe(made, observed)
        _hook.runs_batched(observed_batched)
        try:
            yield
        finally:
            _hook.observe(made, run)
            _hook.runs_batched(run_batched)

    def _recorded(self, call: Any, cost: Any, written: Any, module: Any) -> Any:
        path = getattr(module.name, "path", None)
        own = threading.get_ident() == self._thread
        if path is None or path in self._entered or not own:
            return call()
        self._entered.add(path)
        flops = cost()
        out = call()
        shown = out[0] if written.__name__ == "call_and_update" else out
        self.calls[path] = Call(_tree.make_array_spec(_live.detach(shown)), flops)
        return out


Count = Callable[[], int | None]


def _cost(written: Any, module: Any, args: tuple, kwargs: dict) -> Callable[[], Count]:
    """Return what prepares, inside the trace, to count the operations of a call outside."""

    def called(module: Any, args: tuple, keywords: dict) -> Any:
        whole = written.__name__ == "call_and_update"
        return _api.call(module if whole else types.MethodType(written, module), *args, **keywords)

    return lambda: _later(called, module, args, kwargs)


def _cost_batched(live: Any, args: tuple, kwargs: dict) -> Callable[[], Count]:
    """Return the same for a layer that sees all examples: it sees one."""

    def called(module: Any, args: tuple, keywords: dict) -> Any:
        arrays, static = eqx.partition(args, _tree.is_array)

        def one(arrays: Any) -> Any:
            return _api.call(module, *eqx.combine(arrays, static), **keywords)

        return jax.vmap(one)(jax.tree.map(lambda x: x[None], arrays))

    return lambda: _later(called, live, args, kwargs)


def _later(called: Any, module: Any, args: tuple, kwargs: dict) -> Count:
    keywords = {**_given(module), **kwargs}
    value, args = _live.detach((module, args), current=True)
    arrays, static = eqx.partition((value, args, keywords), _is_array)
    arrays = _tree.abstract(arrays)
    return lambda: _flops.flops(lambda arrays: called(*eqx.combine(arrays, static)), arrays)


def _given(module: Any) -> dict[str, Any]:
    """Return the keywords that reach a module from calls around it and that it takes inside."""
    place = module.__dict__.get(_pytree.PLACE)
    if place is None:
        scope = _pytree.scope_of(module)
        keywords = _keywords.NONE if scope is None else scope.keywords
    else:
        keywords = place.keywords
    known = _takes.taken_inside(module)
    given = {name: value for name, value, _ in keywords.static if name in known}
    for array in keywords.arrays:
        if array.name in known:
            leaves = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in array.avals]
            given[array.name] = jax.tree.unflatten(array.treedef, leaves)
    return given
