"""The floating-point operations of a function, by JAX's cost analysis.

XLA counts the body of a loop once, however often it runs. The bodies of scans are counted here as
often as they run; those of `lax.while_loop`, whose number of steps nobody knows, once. Of a `cond`
the most expensive branch counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from oryxstate import _jax, _jaxprs


def flops(function: Callable[..., Any], *args: Any) -> int | None:
    """Count the floating-point operations of a call; None where XLA does not tell.

    Args:
        function: takes arrays and returns arrays.
        *args: their `jax.ShapeDtypeStruct`s.
    """
    total = _of_jaxpr(jax.make_jaxpr(function)(*args))
    return None if total is None else round(total)


def _of_jaxpr(jaxpr: Any) -> float | None:
    once = _counted_once(jaxpr)
    return None if once is None else once + _missed(jaxpr)


def _counted_once(jaxpr: Any) -> float | None:
    """Return what XLA counts."""
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in _jaxprs.invars(jaxpr)]
    lowered = jax.jit(lambda *args: _jaxprs.evaluate(jaxpr, args)).lower(*avals)
    analysis = lowered.cost_analysis()
    return None if analysis is None else float(analysis.get("flops", 0))


def _missed(jaxpr: Any) -> float:
    """Return what XLA leaves out, which counts each loop once."""
    return sum(map(_missed_in, _jaxprs.equations(jaxpr)))


def _missed_in(equation: Any) -> float:
    inner = list(_computations(equation))
    if equation.primitive is _jax.SCAN:
        (body,) = inner
        return equation.params["length"] * (_of_jaxpr(body) or 0) - (_counted_once(body) or 0)
    if equation.primitive is _jax.COND:
        costs = [(_of_jaxpr(branch) or 0, _counted_once(branch) or 0) for branch in inner]
        return max(whole for whole, _ in costs) - max(once for _, once in costs)
    return sum(map(_missed, inner))


def _computations(equation: Any) -> Iterator[Any]:
    """Yield the jaxprs among the parameters of an equation."""
    for value in equation.params.values():
        for each in value if isinstance(value, tuple) else (value,):
            if hasattr(each, "eqns") or hasattr(getattr(each, "jaxpr", None), "eqns"):
                yield each
