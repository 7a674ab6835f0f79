"""A self-test on this JAX: small programs with state, compared with results by hand.

The import runs them where `_releases` asks for it. It must not start a backend (a program may want
to choose one, or to call `jax.distributed.initialize`, after its imports), so the programs are
staged, and NumPy computes them. What it does not know, JAX computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oryxstate import _hi_primitives, _jax, _jaxprs
from oryxstate._api import call_and_update
from oryxstate._module._base import Module
from oryxstate._module._fields import state, static


class _Sum(Module):
    """`y = x * (s + x * x)`, which is the new `s` times `x`."""

    total: Any = state()

    def call(self, x):
        self.assign(total=self.total + x * x)
        return x * self.total


class _Count(Module):
    count: Any = state()

    def call(self, x):
        self.assign(count=self.count + 1)
        return x * self.count


class _Root(Module):
    """Runs a transformation over a module inside."""

    inner: Module
    run: Any = static()

    def call(self, x):
        return self.run(self.inner, x)


@jax.custom_vjp
def _with_own_derivative(m, x):
    return m(x)


_with_own_derivative.defvjp(lambda m, x: (m(x), m), lambda m, bar: (None, 7 * bar))


class Program(NamedTuple):
    """A program with state, and what it computes.

    Attributes:
        module: what has the state.
        run: a function of the module and the input.
        x: the input.
        results: by hand: the output, the state afterwards, and the derivative of the output by the
            input, or None if that is not asked for.
    """

    module: type[Module]
    run: Callable[[Any, Any], Any]
    x: Any
    results: tuple[Any, Any, Any]


# All start with the state 1. With the input 2: the sum becomes 1 + 2 * 2 = 5, the output 2 * 5.
PROGRAMS = {
    "jax.jit": Program(_Sum, lambda m, x: jax.jit(lambda x: m(x))(x), 2.0, (10.0, 5.0, None)),
    "jax.lax.scan": Program(  # then 5 + 10 * 10 = 105, and 10 * 105
        _Sum,
        lambda m, x: lax.scan(lambda h, _: (m(h), None), x, None, length=2)[0],
        2.0,
        (1050.0, 105.0, None),
    ),
    "jax.lax.cond": Program(
        _Sum, lambda m, x: lax.cond(x > 0, m, lambda x: x, x), 2.0, (10.0, 5.0, None)
    ),
    "jax.checkpoint": Program(  # the derivative of x + x ** 3 is 1 + 3 * x * x
        _Sum, lambda m, x: jax.checkpoint(lambda x: m(x))(x), 2.0, (10.0, 5.0, 13.0)
    ),
    "jax.custom_vjp": Program(_Sum, _with_own_derivative, 2.0, (10.0, 5.0, 7.0)),
    "jax.vmap": Program(
        _Count, lambda m, x: jax.vmap(m)(x), np.array([1.0, 2.0]), ([2.0, 4.0], 2.0, None)
    ),
}


def wrong() -> Iterator[str]:
    """Say which programs do not compute what they should."""
    for name, program in PROGRAMS.items():
        try:
            found = _computed(program)
        except Exception as error:
            yield f"state through `{name}` raises {type(error).__name__}: {error}"
            continue
        expected = [np.asarray(x) for x in program.results if x is not None]
        if len(found) != len(expected) or not all(map(np.array_equal, found, expected)):
            yield f"state through `{name}` gives {_shown(found)} instead of {_shown(expected)}"


def _shown(values: Sequence) -> str:
    return ", ".join(str(np.asarray(x).tolist()) for x in values)


def _root(program: Program, start: Any) -> Any:
    module: Any = program.module
    return _Root(module(start), program.run)


def _computed(program: Program) -> list:
    """Output, state, and derivative, if it is asked for."""

    def run(start, x):
        y, new = call_and_update(_root(program, start), x)
        return y, jax.tree.leaves(new)

    def differentiated(start, x):
        (y, leaves), slope = jax.value_and_grad(run, argnums=1, has_aux=True)(start, x)
        return y, leaves, slope

    x = np.asarray(program.x, np.float32)
    args = np.ones((), np.float32), x
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
    staged = jax.make_jaxpr(run if program.results[2] is None else differentiated)(*shapes)
    try:
        return evaluate(staged, args)
    except _UnknownError:
        return _jaxprs.evaluate(staged, [jnp.asarray(a) for a in args])


# NumPy --------------------------------------------------------------------------------------------


class _UnknownError(Exception):
    """NumPy does not know a primitive."""


_FIRST_ORDER: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, **_: x + y,
    "add_any": lambda x, y, **_: x + y,
    "mul": lambda x, y, **_: x * y,
    "gt": lambda x, y, **_: x > y,
    "convert_element_type": lambda x, *, new_dtype, **_: np.asarray(x).astype(new_dtype),
    "clamp": lambda low, x, high, **_: np.clip(x, low, high),
    "broadcast_in_dim": lambda x, *, shape, **_: np.broadcast_to(x, shape),
}
_CALLS = ("jit", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def evaluate(jaxpr: Any, args: Sequence) -> list:
    """Run a jaxpr of scalars with NumPy.

    Raises:
        _UnknownError: if it holds a primitive that is not known here.
    """
    jaxpr = _jaxprs.close(jaxpr)
    values = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    values.update(zip(_jaxprs.invars(jaxpr), args, strict=True))

    def read(variable):
        return variable.val if hasattr(variable, "val") else values[variable]

    for eqn in _jaxprs.equations(jaxpr):
        out = _bound(eqn, [read(v) for v in eqn.invars])
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in _jaxprs.outvars(jaxpr)]


def _bound(eqn: Any, args: list) -> list:
    name, params = eqn.primitive.name, eqn.params
    if name in _FIRST_ORDER:
        return [_FIRST_ORDER[name](*args, **params)]
    if name in _CALLS:
        return evaluate(next(iter(_jaxprs.subjaxprs(params))), args)
    if eqn.primitive is _jax.HI_PRIMITIVE:
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        return evaluate(jax.make_jaxpr(_hi_primitives.HiPrimitive(params).run)(shapes), args)
    if name == "cond":
        return evaluate(params["branches"][int(args[0])], args[1:])
    if name == "scan" and len(args) == sum(_jaxprs.scan_counts(params)):
        consts = args[: _jaxprs.scan_counts(params)[0]]
        carry = args[len(consts) :]
        for _ in range(params["length"]):
            carry = evaluate(params["jaxpr"], [*consts, *carry])
        return carry
    raise _UnknownError(name)
