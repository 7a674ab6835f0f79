"""The primitive that gives code written for one example the examples of every `vmap` around it.

It climbs down the stack of traces and gathers the axis of each `vmap` that it meets. Where nothing
below maps any more it is evaluated, with all these axes in front. (JAX's own `custom_vmap` has no
derivative, and would evaluate at the first `vmap`.)
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from oryxstate import _explicit, _jax, _jaxprs, _tangents


class _BatchedPrimitive(_jax.Primitive):
    """Evaluated at the first differentiating trace; the vmaps below it map other things."""

    def bind_with_trace(self, trace, args, avals, params, /):
        below = trace
        while isinstance(below, _jax.ForwardingTrace):
            below = _jax.parent(below)
        if _jax.differentiates(below):
            with _jax.set_current_trace(trace):
                return _compute(*args, **params)
        return super().bind_with_trace(trace, args, avals, params)


batched_p = _BatchedPrimitive("batched")

Run = Callable[[Sequence, Sequence], tuple[list, list]]


class Examples(NamedTuple):
    """A computation, for one example and for a batch.

    Each is called as `run(shared, inputs)` and returns `(outputs, new)`; for a batch all `inputs`
    and `outputs` have an axis of examples in front. All examples have `new` in common.
    """

    one: Run
    batch: Run


class _Gathered(threading.local):
    names: frozenset = frozenset()


_gathered = _Gathered()


def not_gathered(axis_names: Sequence) -> tuple:
    """Return the named axes that the batch being computed has not gathered in its examples."""
    return tuple(name for name in axis_names if name not in _gathered.names)


def per_example(
    examples: Examples, shared: Sequence, inputs: Sequence, avals: tuple[tuple, tuple]
) -> tuple[list, list]:
    """Compute `(outputs, new)` of one example together with all others of every `vmap` around.

    Args:
        examples: the computation.
        shared: arrays that all examples have in common.
        inputs: arrays of one example.
        avals: the avals of `outputs` and `new`, from `avals_of`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate._batched import _primitive
        >>> def batch(shared, inputs):
        ...     (x,) = inputs
        ...     return [x - x.mean()], [x.mean()]
        >>> examples = _primitive.Examples(lambda shared, inputs: (inputs, [inputs[0]]), batch)
        >>> def centered(x):
        ...     avals = _primitive.avals_of(examples, [], [x])
        ...     (y,), _ = _primitive.per_example(examples, [], [x], avals)
        ...     return y
        >>> jax.vmap(centered)(jnp.array([1.0, 3.0])).tolist()
        [-1.0, 1.0]
    """
    flat = batched_p.bind(
        *shared,
        *inputs,
        examples=examples,
        split=len(shared),
        sizes=(),
        names=frozenset(),
        has_axes=(False,) * len(inputs),
        out_avals=avals[0],
        new_avals=avals[1],
    )
    return list(flat[: len(avals[0])]), list(flat[len(avals[0]) :])


def avals_of(examples: Examples, shared: Sequence, inputs: Sequence) -> tuple[tuple, tuple]:
    """Infer the avals of the outputs and of `new` for one example, by staging a batch of one."""

    def alone(*operands: Any) -> tuple[list, list]:
        some, xs = operands[: len(shared)], operands[len(shared) :]
        out, new = examples.batch(some, [jnp.expand_dims(x, 0) for x in xs])
        return [x[0] for x in out], new

    staged, shapes = jax.make_jaxpr(alone, return_shape=True)(*shared, *inputs)
    count = len(jax.tree.leaves(shapes[0]))
    avals = tuple(var.aval for var in _jaxprs.outvars(staged))
    return avals[:count], avals[count:]


def _compute(*operands, examples, split, sizes, names, has_axes, **_):
    shared, inputs = operands[:split], operands[split:]
    if not sizes:
        out, new = examples.one(shared, inputs)
        return [*out, *new]
    count, before = math.prod(sizes), _gathered.names
    together = [
        x.reshape(count, *x.shape[len(sizes) :])
        if has
        else jnp.broadcast_to(x, (count, *jnp.shape(x)))
        for x, has in zip(inputs, has_axes, strict=True)
    ]
    _gathered.names = before | names
    try:
        out, new = examples.batch(shared, together)
    finally:
        _gathered.names = before
    return [*(y.reshape(*sizes, *y.shape[1:]) for y in out), *new]


def _abstract(*operands, split, sizes, has_axes, out_avals, new_avals, **_):
    inputs = zip(operands[split:], has_axes, strict=True)
    leading = next((_explicit.entries(x)[: len(sizes)] for x, has in inputs if has), ())
    return [*(_wider(aval, sizes, leading) for aval in out_avals), *new_avals]


def _wider(aval: Any, sizes: Sequence[int], leading: _explicit.Entries) -> Any:
    """Return an aval with more axes in front."""
    return _explicit.resized(aval, (*sizes, *aval.shape), (*leading, *_explicit.entries(aval)))


def _jvp(primals, tangents, **params):
    """Differentiate the primitive in a program that is differentiated as a whole."""
    return _tangents.jvp_of(lambda *xs: _compute(*xs, **params), primals, tangents)


def _batch(axis_name, operands, dims, *, split, **params):
    if any(dim is not None for dim in dims[:split]):
        return _batch_of_members(operands, dims, split=split, **params)
    sizes, has_axes = params.pop("sizes"), params.pop("has_axes")
    inputs, dims = operands[split:], dims[split:]
    (size,) = {jnp.shape(x)[d] for x, d in zip(inputs, dims, strict=True) if d is not None}
    moved = [
        _move(x, dim, 0)
        if dim is not None
        else jnp.broadcast_to(x, (size, *jnp.shape(x)))
        if has
        else x
        for x, dim, has in zip(inputs, dims, has_axes, strict=True)
    ]
    now_has = tuple(has or d is not None for has, d in zip(has_axes, dims, strict=True))
    # An input mapped here for the first time lacks the batch axes gathered so far; add them.
    moved = [
        _with_axes(x, sizes) if sizes and now and not has else x
        for x, has, now in zip(moved, has_axes, now_has, strict=True)
    ]
    params["names"] |= {axis_name}
    out = batched_p.bind(
        *operands[:split],
        *moved,
        split=split,
        sizes=(size, *sizes),
        has_axes=now_has,
        **params,
    )
    outputs = len(params["out_avals"])
    return out, [0] * outputs + [None] * (len(out) - outputs)


def _move(x: Any, axis: int, target: int) -> Any:
    # `jnp.moveaxis` is a jitted function, which costs a call even if nothing moves.
    return x if axis == target else jnp.moveaxis(x, axis, target)


def _with_axes(x: Any, sizes: tuple) -> Any:
    """Insert axes of these sizes after the first."""
    wide = jnp.expand_dims(x, tuple(range(1, 1 + len(sizes))))
    return jnp.broadcast_to(wide, (x.shape[0], *sizes, *x.shape[1:]))


def _batch_of_members(operands, dims, *, examples, split, sizes, has_axes, **params):
    """Map the shared operands: an ensemble, each member with its own examples."""
    (size,) = {jnp.shape(x)[d] for x, d in zip(operands, dims, strict=True) if d is not None}
    # For inputs, the member axis follows the example axes.
    targets = [0] * split + [len(sizes) if has else 0 for has in has_axes]
    moved = [
        x if dim is None else _move(x, dim, target)
        for x, dim, target in zip(operands, dims, targets, strict=True)
    ]

    def mapped(run: Run, axis: int) -> Run:
        in_axes = (
            [None if d is None else 0 for d in dims[:split]],
            [None if d is None else axis for d in dims[split:]],
        )

        def members(shared, inputs):
            return jax.vmap(run, in_axes, (axis, 0), axis_size=size)(list(shared), list(inputs))

        return members

    def wider(avals: Sequence) -> tuple:
        return tuple(_wider(aval, (size,), ((),)) for aval in avals)

    params["out_avals"] = wider(params["out_avals"])
    params["new_avals"] = wider(params["new_avals"])
    out = batched_p.bind(
        *moved,
        examples=Examples(mapped(examples.one, 0), mapped(examples.batch, 1)),
        split=split,
        sizes=sizes,
        has_axes=has_axes,
        **params,
    )
    outputs = len(params["out_avals"])
    return out, [len(sizes)] * outputs + [0] * (len(out) - outputs)


_jax.define_pure_primitive(
    batched_p, impl=_compute, abstract_eval=_abstract, jvp=_jvp, batch=_batch
)
