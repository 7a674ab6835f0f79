"""How is a variable read and written? Two primitives, so that JAX carries them where the code goes.

Both climb down the stack of traces (vmap, grad, ...) until they reach the trace of the frame that
holds the variable, or a trace that stages a jaxpr, in which they then stand as equations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _jax, _tree
from oryxstate._effects import _frames, _tape
from oryxstate._effects._frames import FunctionFrame, Leaves
from oryxstate._effects._names import FUNCTION, KEY_AXIS, Name, StateEffect
from oryxstate._effects._trace import no_rule
from oryxstate._errors import EffectError

UNDECLARED = (
    "No variable declared for assign: {field}. Declare it with `ox.variable(..., name={field!r})`."
)


KEY_USED = (
    "`init_key` is used for more than the first values of variables. It is the key of the "
    "initialization: a call has none, and would see the same one each time. Give the function "
    "another argument for randomness, or keep a key in a variable, and split it: "
    "`ox.variable(key, name=...)`."
)


class _StatePrimitive(_jax.Primitive):
    """A primitive that is handled by the frame of its variable, its parameter `var`.

    (JAX 0.10 cannot print a jaxpr in which a parameter called `name` is no string.)
    """

    handle: Callable[..., Sequence]

    def bind_with_trace(self, trace, args, avals, params, /):
        name = params["var"]
        trace = _tape.meaningful(trace, name)
        frame = _frames.find(trace, name)
        if self is assign_p and (frame is not None or not _jax.wraps_parent(trace)):
            _tape.landed(frame or trace, name)
        if frame is not None:
            if params["staged"] and _jax.evaluates(trace):
                _refuse_impl(name)
            return self.handle(frame, tuple(args), **params)
        if _jax.wraps_parent(trace):
            bind = functools.partial(super().bind_with_trace, trace, args, avals, params)
            return _tape.through(bind, trace, name, self is assign_p)
        with _jax.without_constant_folding():  # state is no constant of a program
            return super().bind_with_trace(trace, args, avals, {**params, "staged": True})


def _refuse_impl(name: Name) -> None:
    """Raise if a jaxpr is evaluated by the implementation of a primitive that is not known.

    What that does with it, or how often, cannot be known either.
    """
    primitive = _jax.running_impl()
    if primitive is not None:
        raise no_rule(name, primitive)


variable_p = _StatePrimitive("variable")
assign_p = _StatePrimitive("assign")


def read(name: Name, avals: tuple, refs: Leaves = ()) -> Leaves:
    """The current value of a variable.

    Args:
        name: the variable.
        avals: its type at the current trace.
        refs: the leaves that the module at hand carries for it. They say along which axes of the
            surrounding `vmap`s the variable is mapped; empty means along none.
    """
    frame = _frames.find(_jax.current_trace(), name)
    if frame is not None and not refs:  # what `bind` would come to, without the way there
        return _handle_variable(frame, (), var=name, avals=avals, declare=None)
    params = {"var": name, "avals": None if refs else avals, "declare": None, "staged": False}
    return tuple(variable_p.bind(*refs, **params))


def declare(name: Name, leaves: Leaves, structure: Any) -> Leaves:
    """Declare a variable of a function with this value, or read it if the function is called."""
    return tuple(variable_p.bind(*leaves, var=name, avals=None, declare=structure, staged=False))


def write(
    name: Name, leaves: Leaves, refs: Leaves = (), reduce: Callable[..., Any] | None = None
) -> Leaves:
    """Give a variable a new value of the same type; returns the value now held."""
    params = {"var": name, "mapped": bool(refs), "reduce": reduce, "staged": False}
    return tuple(assign_p.bind(*leaves, *refs, **params))


def _handle_variable(frame, refs, *, var, avals, declare, **_):
    if declare is not None and isinstance(frame, FunctionFrame):
        if frame.declaring:
            return _declare(frame, var, refs, declare)
        _check_declared(frame, var)
    held, expected = frame.avals[var], _frames.avals_of(refs) if refs else avals
    if [(a.shape, a.dtype) for a in held] != [(a.shape, a.dtype) for a in expected]:
        if declare is not None:
            raise ValueError(
                f"variable {var.field!r} is {_frames.show(expected)}, but it was "
                f"{_frames.show(held)} when the function was initialized. Its type cannot change."
            )
        raise _frames.shape_error(var, held, expected, "read")
    return frame.read(var)


def _declare(frame: FunctionFrame, name: Name, value: Leaves, structure: Any) -> Leaves:
    if name in frame.values:
        raise ValueError(
            f"two variables are named {name.field!r} in one function. Give one of them another "
            "name, or name the nested function that declares it: `ox.init(f, name=...)`."
        )
    frame.declare(name, value, structure)
    return value


def _check_declared(frame: FunctionFrame, name: Name) -> None:
    if name not in frame.values:
        known = ", ".join(sorted(n.field for n in frame.values)) or "none"
        raise ValueError(
            f"variable {name.field!r} was not declared when the function was initialized "
            f"(declared: {known}). Initialize it again with inputs for which it declares it."
        )


def _handle_assign(frame, operands, *, var, mapped, **_):
    if var not in frame.values:
        raise ValueError(UNDECLARED.format(field=var.field))
    leaves = operands[: len(operands) // 2] if mapped else operands
    frame.write(var, leaves)
    return leaves


variable_p.handle = _handle_variable
assign_p.handle = _handle_assign


def _variable_abstract(*refs, var, avals, **_):
    return list(refs or avals), {StateEffect(var)}


def _assign_abstract(*operands, var, mapped, **_):
    return list(operands[: len(operands) // 2] if mapped else operands), {StateEffect(var)}


def _variable_jvp(primals, tangents, **params):
    # The state of a module is a constant for a gradient with respect to the module's leaves.
    out = variable_p.bind(*primals, **params)
    return out, [_jax.zero_tangent(x) for x in out]


def _assign_jvp(primals, tangents, **params):
    out = assign_p.bind(*primals, **params)
    return out, list(tangents[: len(out)])


def _variable_batch(axis_name, refs, dims, **params):
    if axis_name == KEY_AXIS:  # the first value that a called function computes only has a type
        refs = [r if d is None else jnp.take(r, 0, axis=d) for r, d in zip(refs, dims, strict=True)]
        dims = [None] * len(refs)
    out = variable_p.bind(*refs, **params)
    return out, list(dims) if refs else [None] * len(out)


def _assign_batch(axis_name, operands, dims, *, var, mapped, reduce, **params):
    half = len(operands) // 2
    if mapped:
        leaves, refs = operands[:half], operands[half:]
        dims, own_dims = dims[:half], dims[half:]
    else:
        leaves, refs, own_dims = operands, (), [None] * len(operands)
    if axis_name == KEY_AXIS and any(d is not None for d in dims):
        raise ValueError(KEY_USED)
    moved = [
        _onto_axis(leaf, dim, own, refs[i] if refs else None, var, reduce)
        for i, (leaf, own, dim) in enumerate(zip(leaves, own_dims, dims, strict=True))
    ]
    held = assign_p.bind(*moved, *refs, var=var, mapped=mapped, reduce=reduce, **params)
    # What is reduced is the state afterwards; each example goes on with what it wrote.
    seen = [
        (leaf, dim) if own is None else (new, own)
        for leaf, dim, new, own in zip(leaves, dims, held, own_dims, strict=True)
    ]
    return [leaf for leaf, _ in seen], [dim for _, dim in seen]


def _onto_axis(leaf, dim, own, ref, name, reduce):
    """A written leaf, batched along `dim`, as the variable wants it: batched along `own`."""
    if own is None and dim is None:
        return leaf
    if own is None:
        return _reduced(leaf, dim, name, reduce)
    if dim is None:
        return jnp.broadcast_to(jnp.expand_dims(leaf, own), jnp.shape(ref))
    return jnp.moveaxis(leaf, dim, own)


def _reduced(leaf, dim, name, reduce):
    aval = jax.typeof(leaf)
    each = aval.shape[:dim] + aval.shape[dim + 1 :]
    if reduce is None:
        raise EffectError(
            f"state '{name}' of a module that is not mapped was written inside `vmap` with a value "
            f"that depends on the mapped axis: it is {aval.dtype}{list(each)}, the value of all "
            f"{aval.shape[dim]} examples together {aval.dtype}{list(aval.shape)}. Either reduce it "
            "before the write (`jax.lax.pmean(value, axis_name)` with `vmap(..., axis_name=...)`), "
            f"or say how examples combine, `{name.field}: ... = ox.state(reduce=jnp.mean)`, or map "
            "the module too (an ensemble), or stop the dependence with a value that is equal for "
            "all examples."
        )
    out = reduce(leaf, axis=dim)
    if jnp.shape(out) != each:
        raise EffectError(
            f"`reduce` of state '{name}' must turn {list(aval.shape)} into {list(each)} (it is "
            f"called as `reduce(values, axis={dim})`), but returned {list(jnp.shape(out))}."
        )
    (out,) = _tree.conform(
        out, (aval.update(shape=each),), jax.tree.structure(out), f"`reduce` of state '{name}'"
    )
    return out


def _unhandled(verb: str) -> Callable[..., Any]:
    def impl(*operands, var, **_):
        raise EffectError(
            f"state '{var}' is {verb} where no root call holds it: inside a JAX primitive that "
            "oryxstate has no rule for, or in a function that was traced inside a call and ran "
            "after it. Hand the state over explicitly, `y, module = module.call_and_update(x)`."
            if var.level != FUNCTION
            else f"variable '{var}' is {verb} where no initialized function holds it. Make the "
            "function a module with `ox.init(f)(key, ...)` and call that."
        )

    return impl


_jax.define_primitive(
    variable_p,
    impl=_unhandled("read"),
    abstract_eval=_variable_abstract,
    jvp=_variable_jvp,
    batch=_variable_batch,
)
_jax.define_primitive(
    assign_p,
    impl=_unhandled("written"),
    abstract_eval=_assign_abstract,
    jvp=_assign_jvp,
    batch=_assign_batch,
)
