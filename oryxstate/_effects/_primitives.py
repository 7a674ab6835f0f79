"""The two primitives that read and write variables, which JAX carries to wherever code runs.

Both climb down the stack of traces (vmap, grad, ...) until they reach the trace of the frame that
holds the variable, or a trace that stages a jaxpr, in which they then stand as equations.

A live module reads and writes through its own root call, so what it binds carries the `identity`
of that call, and no other call answers. A module that came as a value (an argument of a jitted
function, say) is whatever stands at its place in the call that hands it over: JAX may have traced
that code in an earlier one. It brings `refs` instead, the leaves that it carries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from oryxstate import _explicit, _jax, _tangents, _tree
from oryxstate._effects import _frames, _write_tape
from oryxstate._effects._frames import Frame, Leaves
from oryxstate._effects._names import FUNCTION, KEY_AXIS, Name, StateEffect
from oryxstate._effects._trace import no_rule
from oryxstate._errors import EffectError

UNDECLARED = (
    "No variable declared for assign: {field}. Declare it with `ox.variable(..., name={field!r})`."
)

TWICE = (
    "two variables are named {field!r} in one function. Give one of them another name, or name the "
    "nested function that declares it: `ox.init(f, name=...)`."
)

ENDED = (
    "state '{name}' belongs to a root call that has ended: its module was kept from that call, or "
    "is used by code that JAX runs later, such as the backward pass of a `custom_vjp`. Return the "
    "module from the call (`y, model = model.call_and_update(x)` hands back the whole updated "
    "model), or hand on its value, `ox.snapshot(module)`."
)

ELSEWHERE = (
    "state '{name}' belongs to a root call that is not open here: its module is used in another "
    "thread, or on the host (`jax.pure_callback`, `jax.debug.callback`). Hand on its value, "
    "`ox.snapshot(module)`."
)

KEY_USED = (
    "`init_key` is used for more than the first values of variables. It is the key of the "
    "initialization: a call has none, and would see the same one each time. Give the function "
    "another argument for randomness, or keep a key in a variable, and split it: "
    "`ox.variable(key, name=...)`."
)


class _StatePrimitive(_jax.Primitive):
    """A primitive that is handled by the frame of its variable, its parameter `var`.

    (JAX 0.10 cannot print a jaxpr in which a parameter called `name` is not a string.)
    """

    handle: Callable[..., Sequence]

    def bind_with_trace(self, trace, args, avals, params, /):
        name = params["var"]
        trace = _write_tape.meaningful(trace, name)
        frame = _frames.find(trace, name)
        if self is assign_p and (frame is not None or not _jax.wraps_parent(trace)):
            _write_tape.landed(frame or trace, name)
        if frame is not None:
            if params["staged"] and _jax.evaluates(trace):
                _refuse_impl(name)
            return self.handle(frame, tuple(args), **params)
        if _jax.wraps_parent(trace):
            bind = functools.partial(super().bind_with_trace, trace, args, avals, params)
            if self is assign_p:
                out = bind()
                _write_tape.keep(trace, name, out)
                return out
            below = functools.partial(self._below, trace, args, avals, params)
            return _write_tape.through(bind, below, trace, name)
        with _jax.without_constant_folding():  # state is not a constant of a program
            return super().bind_with_trace(trace, args, avals, {**params, "staged": True})

    def _below(self, trace, args, avals, params):
        primals = tuple((_jax.split(trace, x) or (x, None))[0] for x in args)
        return self.bind_with_trace(_jax.parent(trace), primals, avals, params)


def _refuse_impl(name: Name) -> None:
    """Raise if a jaxpr is evaluated by the implementation of a primitive that is not known.

    What that does with it, or how often, cannot be known either.
    """
    primitive = _jax.running_impl()
    if primitive is not None:
        raise no_rule(name, primitive)


variable_p = _StatePrimitive("variable")
assign_p = _StatePrimitive("assign")


def read(name: Name, avals: tuple, refs: Leaves = (), identity: int | None = None) -> Leaves:
    """Return the current value of a variable.

    Args:
        name: the variable.
        avals: its type at the current trace.
        refs: the leaves that the module at hand carries for it. They say along which axes of the
            surrounding `vmap`s the variable is mapped; empty means along none.
        identity: of the frame that must hold it; None for whichever does.

    Raises:
        EffectError: if another root call holds a variable of this name.
    """
    frame = _frames.find(_jax.current_trace(), name)
    if frame is not None and not refs:  # what `bind` would come to, without the steps between
        return _handle_variable(frame, (), var=name, avals=avals, declare=None, identity=identity)
    params = {"var": name, "avals": None if refs else avals, "declare": None, "staged": False}
    return tuple(variable_p.bind(*refs, identity=identity, **params))


def declare(name: Name, leaves: Leaves, treedef: Any) -> Leaves:
    """Declare a variable of a function with this value, or read it if the function is called."""
    params = {"var": name, "avals": (), "declare": treedef, "staged": False, "identity": None}
    return tuple(variable_p.bind(*leaves, **params))


def write(
    name: Name,
    leaves: Leaves,
    refs: Leaves = (),
    reduce: Callable[..., Any] | None = None,
    identity: int | None = None,
) -> Leaves:
    """Give a variable a new value of the same type; return the value now held."""
    seen: Leaves = ()
    if reduce is jnp.sum:  # what each example adds is what it writes, less what it would read now
        seen = read(name, _frames.avals_of(leaves), refs, identity)
    shape = _Operands(bool(refs), bool(seen))
    params = {"var": name, "shape": shape, "reduce": reduce, "staged": False, "identity": identity}
    return tuple(assign_p.bind(*leaves, *refs, *seen, **params))


class _Operands(NamedTuple):
    """Which groups of operands a write has behind the leaves that it writes."""

    refs: bool
    seen: bool

    def split(self, operands: Sequence) -> tuple[list, list, list]:
        """Split operands, or what belongs to them, into `(leaves, refs, seen)`."""
        count = len(operands) // (1 + self.refs + self.seen)
        leaves, rest = list(operands[:count]), list(operands[count:])
        return leaves, rest[:count] if self.refs else [], rest[-count:] if self.seen else []


# Handled by a frame -------------------------------------------------------------------------------


def _check_identity(frame: Frame, name: Name, identity: int | None) -> None:
    if identity is not None and frame.level >= 0 and frame.identity != identity:
        raise EffectError(ENDED.format(name=name))


def _handle_variable(frame, refs, *, var, avals, declare, identity, **_):
    if declare is not None and frame.declaring:
        return _declare(frame, var, refs, declare)
    _check_declared(frame, var)
    _check_identity(frame, var, identity)
    held, expected = frame.variables[var].avals, _frames.avals_of(refs) if refs else avals
    if [(a.shape, a.dtype) for a in held] != [(a.shape, a.dtype) for a in expected]:
        if declare is not None:
            raise ValueError(
                f"variable {var.field!r} is {_frames.show(expected)}, but it was "
                f"{_frames.show(held)} when the function was initialized. Its type cannot change."
            )
        raise _frames.shape_error(var, held, expected, "read")
    return frame.variables[var].leaves


def _declare(frame: Frame, name: Name, value: Leaves, treedef: Any) -> Leaves:
    if name in frame.variables:
        raise ValueError(TWICE.format(field=name.field))
    frame.add(name, frame.arrays(value), treedef)
    return value


def _check_declared(frame: Frame, name: Name) -> None:
    if name not in frame.variables:
        known = ", ".join(sorted(n.field for n in frame.variables)) or "none"
        raise ValueError(
            f"variable {name.field!r} was not declared when the function was initialized "
            f"(declared: {known}). Initialize it, `ox.init(f)(key, x)`, with inputs for which it "
            "declares it."
        )


def _handle_assign(frame, operands, *, var, shape, identity, **_):
    if var not in frame.variables:
        raise ValueError(UNDECLARED.format(field=var.field))
    _check_identity(frame, var, identity)
    leaves = tuple(shape.split(operands)[0])
    frame.write(var, leaves)
    return leaves


variable_p.handle = _handle_variable
assign_p.handle = _handle_assign


# Under JAX's transformations ----------------------------------------------------------------------


def _variable_abstract(*refs, var, avals, **_):
    return list(refs or map(_explicit.here, avals)), {StateEffect(var)}


def _assign_abstract(*operands, var, shape, **_):
    return shape.split(operands)[0], {StateEffect(var)}


def _variable_jvp(primals, tangents, **params):
    # What is read has the tangent that the module at hand brings, until it is written: then the
    # tape answers. The value with which a called function names a variable only has a type.
    out = variable_p.bind(*primals, **params)
    if primals and params["declare"] is None:
        return out, list(tangents)
    return out, [_tangents.zero_tangent(x) for x in out]


def _assign_jvp(primals, tangents, **params):
    out = assign_p.bind(*primals, **params)
    return out, list(tangents[: len(out)])


def _variable_batch(axis_name, refs, dims, **params):
    if axis_name == KEY_AXIS:  # the first value that a called function computes only has a type
        refs = [r if d is None else jnp.take(r, 0, axis=d) for r, d in zip(refs, dims, strict=True)]
        dims = [None] * len(refs)
    out = variable_p.bind(*refs, **params)
    return out, list(dims) if refs else [None] * len(out)


def _assign_batch(axis_name, operands, dims, *, var, shape, reduce, **params):
    leaves, refs, seen = shape.split(operands)
    dims, own_dims, seen_dims = shape.split(dims)
    own_dims = own_dims or [None] * len(leaves)
    if axis_name == KEY_AXIS and any(d is not None for d in dims):
        raise ValueError(KEY_USED)
    moved = [
        leaf if own is None else _onto_axis(leaf, dim, own, jnp.shape(refs[i]))
        for i, (leaf, dim, own) in enumerate(zip(leaves, dims, own_dims, strict=True))
    ]
    shared = [i for i, own in enumerate(own_dims) if own is None]
    if seen:
        now = read(var, _unmapped(moved, dims, own_dims), tuple(refs), params["identity"])
        for i in shared:
            if dims[i] is not None or seen_dims[i] is not None:
                moved[i] = _added(now[i], (leaves[i], dims[i]), (seen[i], seen_dims[i]))
        seen = list(now)
    else:
        for i in shared:
            if dims[i] is not None:
                moved[i] = _reduced(leaves[i], dims[i], var, reduce)
    held = assign_p.bind(*moved, *refs, *seen, var=var, shape=shape, reduce=reduce, **params)
    # The reduction becomes the state; inside the vmap each example keeps its own value.
    kept = [
        (leaf, dim) if own is None else (new, own)
        for leaf, dim, new, own in zip(leaves, dims, held, own_dims, strict=True)
    ]
    return [leaf for leaf, _ in kept], [dim for _, dim in kept]


def _onto_axis(leaf, dim, own, shape):
    """Map a written leaf along the axis `own` of its variable."""
    if dim is None:
        return jnp.broadcast_to(jnp.expand_dims(leaf, own), shape)
    return jnp.moveaxis(leaf, dim, own)


def _unmapped(leaves, dims, own_dims):
    """Return the types of leaves as their variable holds them."""
    avals = [jax.typeof(leaf) for leaf in leaves]
    return tuple(
        aval if dim is None or own is not None else _without_axis(aval, dim)
        for aval, dim, own in zip(avals, dims, own_dims, strict=True)
    )


def _without_axis(aval, dim):
    of_axes = _explicit.entries(aval)
    shape = aval.shape[:dim] + aval.shape[dim + 1 :]
    return _explicit.resized(aval, shape, of_axes[:dim] + of_axes[dim + 1 :])


def _added(now, written, seen):
    """Return the current value, and the sum of what the examples add to what each of them saw."""
    (new, dim), (old, old_dim) = written, seen
    changes = jax.vmap(jnp.subtract, (dim, old_dim))(new, old)
    total = jnp.add(now, jnp.sum(changes, axis=0, dtype=changes.dtype))
    aval = jax.typeof(now)
    return _jax.convert(total, aval.dtype, getattr(aval, "weak_type", False))


def _reduced(leaf, dim, name, reduce):
    aval = jax.typeof(leaf)
    each = _without_axis(aval, dim)
    if reduce is None:
        raise EffectError(
            f"state '{name}' of a module that is not mapped was written inside `vmap` with a value "
            f"that depends on the mapped axis: it is {aval.dtype}{list(each.shape)}, the value of "
            f"all {aval.shape[dim]} examples together {aval.dtype}{list(aval.shape)}. Either "
            "reduce it before the write (`jax.lax.pmean(value, axis_name)` with `vmap(..., "
            f"axis_name=...)`), or say how examples combine, `{name.field}: ... = "
            "ox.state(reduce=jnp.mean)`, or give each example its own state, "
            "`ox.per_example(model, size)`, or map the module too (an ensemble), or stop the "
            "dependence with a value that is equal for all examples."
        )
    out = reduce(leaf, axis=dim)
    if jnp.shape(out) != each.shape:
        raise EffectError(
            f"`reduce` of state '{name}' must turn {list(aval.shape)} into {list(each.shape)} (it "
            f"is called as `reduce(values, axis={dim})`), but returned {list(jnp.shape(out))}."
        )
    (out,) = _tree.conform(out, (each,), jax.tree.structure(out), f"`reduce` of state '{name}'")
    return out


def _unhandled(verb: str) -> Callable[..., Any]:
    def impl(*operands, var, **_):
        raise EffectError(
            f"state '{var}' is {verb} where no root call holds it: inside a JAX primitive that "
            "oryxstate has no rule for, on the host, or in a function that was traced inside a "
            "call and ran after it. Hand the state over explicitly, `y, module = "
            "module.call_and_update(x)`, or its value, `ox.snapshot(module)`."
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
