"""Functions with which a primitive is bound: those with a derivative of their own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax

from oryxstate import _jax, _tangents


def call_subfun(fun: Any, args: Sequence) -> Any:
    """Call a function that a primitive was bound with, as often as one likes.

    JAX lets the stores for its output trees be filled once, so they are emptied first.
    """
    if not isinstance(fun, _jax.WrappedFun):
        return fun(*args)
    _empty_stores(fun)
    return fun.call_wrapped(*args)


def _empty_stores(fun: _jax.WrappedFun) -> None:
    for store in fun.stores:
        if store is not None:
            store.reset()


_stateless: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def parent_of_unmapped(trace: Any, args: Sequence, fun: Any) -> Any:
    """Return the parent of a `vmap` that maps neither the arguments of a function nor its closure.

    JAX's batch trace takes all outputs of a function with a custom derivative to be mapped.
    """
    if not isinstance(trace, _jax.BatchTrace) or any(_is_mapped_at(trace, x) for x in args):
        return None
    consts = jax.make_jaxpr(lambda *xs: call_subfun(fun, xs))(*args).consts
    _empty_stores(fun)
    return None if any(_is_mapped_at(trace, x) for x in consts) else trace.parent_trace


def _is_mapped_at(trace: Any, value: Any) -> bool:
    return isinstance(value, _jax.BatchTracer) and value._trace is trace


def leave_one_output_tree(subfuns: Sequence) -> None:
    """Keep one output tree of a function and its rule, as when JAX runs one of the two."""
    function, rule = subfuns[:2]
    if any(map(_is_filled, rule.stores)):
        _empty_stores(function)


def _is_filled(store: Any) -> bool:
    try:
        return store is not None and store.val is not store  # reading an empty store raises
    except _jax.StoreException:
        return False


class _Subfuns:
    """A `custom_jvp` or `custom_vjp` function about to be bound."""

    def __init__(self, params: dict):
        self._params = params
        self._function, self._rule, *self._rest = params["subfuns"]
        # The one behind `lax.custom_root`, before 0.11.2.
        self.is_root = getattr(self._function.f, "__name__", "") == "_custom_root"

    def run(self, args: Sequence) -> Any:
        """Return what it computes where nothing is differentiated."""
        return call_subfun(self._function, args)

    def stage(self, args: Sequence, keep: Callable[[Any], bool]) -> Any:
        """Its jaxpr, if `keep(jaxpr)`, else None.

        A function that is not kept is staged once for the same static arguments and types, as JAX
        would cache it: most of them are `jax.nn.relu` and its like.
        """
        fun = self._function
        try:
            key = fun.transforms, fun.params, tuple(map(jax.typeof, args))
            hash(key)
            if key in _stateless.get(fun.f, ()):
                return None
        except TypeError:  # not hashable, or not a function that can be remembered
            key = None
        jaxpr = jax.make_jaxpr(lambda *xs: self.run(xs))(*args)
        if keep(jaxpr):
            return jaxpr
        _empty_stores(fun)
        if key is not None:
            _stateless.setdefault(fun.f, set()).add(key)
        return None


class JVPSubfuns(_Subfuns):
    """A `custom_jvp` function about to be bound."""

    has_vjp = False

    def __str__(self) -> str:
        return "custom_jvp"

    def jvp(self, primals: Sequence, tangents: Sequence) -> tuple[Any, Any]:
        """Run the user's rule."""
        if not self._params["symbolic_zeros"]:
            tangents = [_tangents.instantiated(t) for t in tangents]
        out = call_subfun(self._rule, [*primals, *tangents])
        return out[: len(out) // 2], out[len(out) // 2 :]


class VJPSubfuns(_Subfuns):
    """A `custom_vjp` function about to be bound."""

    has_vjp, generic_batching = True, False

    def __str__(self) -> str:
        return "custom_vjp"

    def forward(self, primals: Sequence, perturbed: Sequence[bool]) -> tuple[list, Any]:
        """Run the user's rule of the forward pass: outputs, and residuals for the backward pass."""
        pairs = [x for pair in zip(primals, perturbed, strict=True) for x in pair]
        flat = call_subfun(self._rule, pairs)
        *_, inputs = self._params["out_trees"]()
        kept = iter(flat)  # residuals that are not inputs, then outputs
        residuals = [next(kept) if i is None else primals[i] for i in inputs]
        return list(kept), residuals

    def backward(self, residuals: Any, cotangents: Sequence) -> tuple[list, Any]:
        """Run the user's rule of the backward pass: cotangents of all inputs, and logs."""
        if not self._params["symbolic_zeros"]:
            cotangents = [_tangents.instantiated(t) for t in cotangents]
        out = call_subfun(self._rest[0], [*residuals, *cotangents])
        out, logs = out if isinstance(out, tuple) else (out, None)  # a pair from 0.11.1
        return [None if _tangents.is_zero(x) else x for x in out], logs


def define_vjp(function: Any, forward: Callable, backward: Callable, like: Any) -> None:
    """Give a `custom_vjp` function rules; `backward` returns cotangents and logs."""
    options = {"generic_batching": True} if like.generic_batching else {}
    if hasattr(function, "defvjp_with_logs"):  # from 0.11.1
        function.defvjp_with_logs(forward, backward, symbolic_zeros=True, **options)
    else:
        function.defvjp(forward, lambda *args: backward(*args)[0], symbolic_zeros=True)
