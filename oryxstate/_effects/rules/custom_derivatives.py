"""State through functions with a derivative of their own: `custom_jvp`, `custom_vjp`, their like.

The outputs keep the user's rule, whose own writes are dropped; the new state is that of the
function itself, with its natural derivative. The rule says nothing of state that the function
reads: a derivative with respect to that is refused, as JAX refuses one with respect to what such
a function closes over.
"""

from __future__ import annotations

from typing import Any

import jax

from oryxstate import _jax, _jaxprs, _subfuns, _tangents
from oryxstate._effects import _frames
from oryxstate._effects._derivatives import is_inexact, state_jvp, state_vjp
from oryxstate._effects._functionalize import (
    declares,
    evolving,
    pure_uncached,
    reaching_outputs,
    thread,
)
from oryxstate._effects._names import FUNCTION, touches_state
from oryxstate._errors import EffectError


def jvp_rule(trace, args, params):
    """Rebuild a stateful `custom_jvp` function."""
    return _rule(_jax.CUSTOM_JVP, _subfuns.JVPSubfuns, trace, args, params)


def vjp_rule(trace, args, params):
    """Rebuild a stateful `custom_vjp` function."""
    return _rule(_jax.CUSTOM_VJP, _subfuns.VJPSubfuns, trace, args, params)


def _rule(primitive, kind, trace, args, params):
    if not _frames.active():
        return None
    with _jax.set_current_trace(trace):
        parent = _subfuns.parent_of_unmapped(trace, args, params["subfuns"][0])
        if parent is not None:
            return _jax.bind_at(primitive, parent, args, params)
        custom = kind(params)
        jaxpr = custom.stage(args, touches_state)
    if jaxpr is None:
        return None
    out = rebuild(trace, custom, jaxpr, args)
    _subfuns.leave_one_output_tree(params["subfuns"])
    return out


def rebuild(trace, custom, jaxpr, args):
    """Rebuild a function with a derivative of its own, whose body `jaxpr` touches state."""
    if declares(jaxpr):  # an initialization, of which nobody asks the derivative
        with _jax.set_current_trace(trace):
            return _jaxprs.evaluate(jaxpr, args)
    with _jax.set_current_trace(trace):  # what it closes over may be a module, mapped or not
        jaxpr, operands = _jaxprs.hoist_consts(jaxpr, args)
    closed_over, pure = operands[: len(operands) - len(args)], pure_uncached(jaxpr)

    def run(read, written, args):
        return pure(read, written, *closed_over, *args)

    def rebuilt(variables):
        held, reaching = {**variables.read, **variables.written}, reaching_outputs(jaxpr)
        refused = _refused(custom, jaxpr, reaching, held)
        make = _with_vjp if custom.has_vjp else _with_jvp
        function = make(custom, run, _roots(held), refused)
        for name in reaching:
            held[name] = _guarded(name, held[name], custom)
        return function(held, variables.read, variables.written, list(args))

    return thread(trace, [(jaxpr, operands)], rebuilt)


def _roots(held: Any) -> tuple[_frames.Frame, ...]:
    """Return the frames of variables: the user's rules run later, and may hold live modules."""
    found = [
        _frames.innermost_function() if level == FUNCTION else _frames.at_level(level)
        for level in sorted({name.level for name in held})
    ]
    return tuple(frame for frame in found if frame is not None)


def _refused(custom, jaxpr, reaching, held):
    """Why the function has no derivative: its rule sees other state than the function did."""
    written = [name for name, is_written in reaching.items() if is_written]
    if custom.is_root and written:
        return _DERIVATIVE_OF_ROOT.format(name=min(written))
    in_loops = [name for name in evolving(jaxpr) if any(map(is_inexact, held[name]))]
    if in_loops:
        return _DERIVATIVE_OF_LOOP.format(name=min(in_loops), custom=custom)
    return None


def _with_jvp(custom, run, roots, refused):
    """Return the user's function, of the state that its rule reads, and of all state."""

    @jax.custom_jvp
    def function(held, read, written, args):
        return run(read, written, args)

    def rule(primals, tangents):
        if refused:
            raise EffectError(refused)
        with _frames.replay(primals[0], roots):
            out, out_dot = custom.jvp(primals[-1], tangents[-1])
        new, new_dot = state_jvp(lambda *inputs: run(*inputs)[1], primals[1:], tangents[1:])
        return (out, new), (out_dot, new_dot)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def _with_vjp(custom, run, roots, refused):
    """Return the same with a rule for the backward pass. It needs residuals: it may run later."""

    @jax.custom_vjp
    def function(held, read, written, args):
        return run(read, written, args)

    def forward(held, *inputs):
        if refused:
            raise EffectError(refused)
        values = jax.tree.map(lambda leaf: leaf.value, (held, *inputs))
        with _frames.replay(values[0], roots):
            out, residuals = custom.forward(values[-1], [leaf.perturbed for leaf in inputs[-1]])
        return (out, run(*values[1:])[1]), (values, residuals)

    def backward(saved, cotangents):
        (held, *inputs), residuals = saved
        with _frames.replay(held, roots, collecting=False):
            by_rule, logs = custom.backward(residuals, cotangents[0])
        natural = state_vjp(lambda *xs: run(*xs)[1], inputs, cotangents[1])
        leaves, tree = jax.tree.flatten(tuple(inputs))
        first = len(leaves) - len(by_rule)
        for i, bar in enumerate(by_rule, first):
            if bar is not None:
                natural[i] = bar if natural[i] is None else natural[i] + bar
        return (None, *jax.tree.unflatten(tree, natural)), logs

    _subfuns.define_vjp(function, forward, backward, custom)
    return function


def _guarded(name, leaves, custom):
    """Return the leaves of a variable, of which no derivative may be asked."""

    @jax.custom_jvp
    def guarded(leaves):
        return leaves

    def rule(primals, tangents):
        if not all(map(_tangents.is_zero, tangents[0])):
            raise EffectError(_DERIVATIVE_OF_STATE.format(name=name, custom=custom))
        return primals[0], tangents[0]

    guarded.defjvp(rule, symbolic_zeros=True)
    return guarded(leaves) if any(map(is_inexact, leaves)) else leaves


_DERIVATIVE_OF_STATE = (
    "state '{name}' is read inside `{custom}`, and a derivative with respect to it is asked for, "
    "of which the rule of `{custom}` says nothing. Hand the value to the function as an argument "
    "(of a module `ox.snapshot(module)`), or write it with `jax.lax.stop_gradient`, or leave state "
    "out of the derivative: `ox.grad(loss)(model)`."
)

_DERIVATIVE_OF_LOOP = (
    "state '{name}' is read and written by a loop inside `{custom}`, and its output depends on it. "
    "The rule of `{custom}` runs on the state that entered, not on that of each iteration, so its "
    "derivative would be wrong. Keep such state in the carry of the loop, or use a loop without a "
    "rule of its own, such as `jax.lax.scan`."
)

_DERIVATIVE_OF_ROOT = (
    "state '{name}' is read and written inside `lax.custom_root`, which is differentiated: the "
    "derivative would be taken at the state that the solve left. Read the state before "
    "`custom_root` and close over the value, or write it after, from the solution."
)
