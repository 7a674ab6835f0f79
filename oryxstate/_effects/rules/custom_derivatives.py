"""How does state pass through functions with `jax.custom_jvp` or `jax.custom_vjp`?

The new state is that of the function itself, with its natural derivative; the outputs keep the
user's rule, whose own writes are dropped. JAX would run only the rule under differentiation, and
the update would be lost, or made twice, with it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from oryxstate import _jax
from oryxstate._effects import _frames, _purify
from oryxstate._effects._names import touches_state


def jvp_rule(trace, args, params):
    """Rebuild a stateful `custom_jvp` function."""
    return _rule(_with_jvp, _jax.CUSTOM_JVP, trace, args, params)


def vjp_rule(trace, args, params):
    """Rebuild a stateful `custom_vjp` function."""
    return _rule(_with_vjp, _jax.CUSTOM_VJP, trace, args, params)


def _rule(rebuild, primitive, trace, args, params):
    if not _frames.any_open():
        return None
    with _jax.set_current_trace(trace):
        parent = _jax.parent_of_unmapped(trace, args, params["subfuns"][0])
        if parent is not None:
            return _jax.bind_at(primitive, parent, args, params)
        jaxpr = _jax.stage_subfun(params["subfuns"][0], args, touches_state)
        if jaxpr is None:
            return None
        if _purify.declares(jaxpr):  # an initialization, of which nobody asks the derivative
            return _jax.evaluate(jaxpr, args)
        state = _purify.State((jaxpr, args))
        function = rebuild(
            jaxpr, _original(primitive, params), _jax.is_custom_root(params["subfuns"][0])
        )
        out, new = function(state.fixed, state.changing, list(args))
        state.assign(new)
        _jax.leave_one_output_tree(params["subfuns"])
    return out


def _original(primitive, params):
    """The function as the user defined it, reading from `held` and writing nothing."""

    def function(held, *args):
        def without_writes(fun):
            def run(*xs):
                with _frames.replay(held):
                    return _jax.call_subfun(fun, xs)

            return _jax.wrap_subfun(run, fun)

        subfuns = tuple(map(without_writes, params["subfuns"]))
        return primitive.bind(*args, **{**params, "subfuns": subfuns})

    return function


def _with_jvp(jaxpr, original, is_root):
    run = _purify.pure_once(jaxpr)

    @jax.custom_jvp
    def function(fixed, changing, args):
        return run(fixed, changing, *args)

    def rule(primals, tangents):
        if is_root:
            _purify.refuse_derivative_of_root(jaxpr)
        fixed, changing, args = primals
        out, out_dot = _jvp_of(lambda xs: original({**fixed, **changing}, *xs), args, tangents[2])
        new, new_dot = _jvp_of(lambda xs: run(xs[0], xs[1], *xs[2])[1], primals, tangents)
        return (out, new), (out_dot, new_dot)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def _jvp_of(function, primals, tangents):
    """`jax.jvp` in the directions that are not symbolically zero."""
    leaves, tree = jax.tree.flatten(primals)
    dots = jax.tree.leaves(tangents, is_leaf=_is_zero)
    if all(map(_is_zero, dots)):
        out = function(primals)
        return out, jax.tree.map(lambda x: SymbolicZero(jax.typeof(x).to_tangent_aval()), out)
    return _jax.jvp_of(lambda *xs: function(jax.tree.unflatten(tree, xs)), leaves, dots)


def _is_zero(x):
    return isinstance(x, SymbolicZero)


def _with_vjp(jaxpr, original, _):
    run = _purify.pure_once(jaxpr)

    @jax.custom_vjp
    def function(fixed, changing, args):
        return run(fixed, changing, *args)

    def forward(*inputs):
        leaves, tree = jax.tree.flatten(inputs, is_leaf=lambda x: hasattr(x, "perturbed"))
        values = [leaf.value for leaf in leaves]
        at = [i for i, leaf in enumerate(leaves) if leaf.perturbed]
        fixed, changing, _ = jax.tree.unflatten(tree, values)

        def with_some(some):
            merged = list(values)
            for i, x in zip(at, some, strict=True):
                merged[i] = x
            return jax.tree.unflatten(tree, merged)

        def outputs(some):
            return original({**fixed, **changing}, *with_some(some)[2])

        def update(some):
            some_fixed, some_changing, args = with_some(some)
            return run(some_fixed, some_changing, *args)[1]

        out, pull_out = jax.vjp(outputs, [values[i] for i in at])
        new, pull_new = jax.vjp(update, [values[i] for i in at])
        pull = functools.partial(_pull, tree, len(leaves), at)
        return (out, new), jax.tree_util.Partial(pull, pull_out, pull_new)

    def backward(pull, cotangents):
        return pull(*cotangents)

    function.defvjp(forward, backward, symbolic_zeros=True)
    return function


def _pull(tree, count, at, pull_out, pull_new, out_bar, new_bar):
    """Cotangents of all inputs: those of the outputs by the user's rule, and of the new state."""
    total = [None] * count
    for pull, bar in ((pull_out, out_bar), (pull_new, new_bar)):
        if not all(map(_is_zero, jax.tree.leaves(bar, is_leaf=_is_zero))):
            (parts,) = pull(jax.tree.map(_instantiated, bar, is_leaf=_is_zero))
            for i, part in zip(at, parts, strict=True):
                total[i] = part if total[i] is None or _is_float0(part) else total[i] + part
    return jax.tree.unflatten(tree, total)


def _is_float0(value):
    return value.dtype == jax.dtypes.float0


def _instantiated(bar):
    if not _is_zero(bar):
        return bar
    if _is_float0(bar.aval):
        return np.zeros(bar.aval.shape, bar.aval.dtype)
    return jnp.zeros(bar.aval.shape, bar.aval.dtype)
