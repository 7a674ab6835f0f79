"""Jaxprs, and the parameters of equations, under one interface for all supported JAX releases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from oryxstate import _jax


def close(jaxpr: Any) -> Any:
    """Return a closed jaxpr, also of the open one in `remat` and `shard_map` up to JAX 0.11."""
    return jaxpr if hasattr(jaxpr, "consts") else _jax.ClosedJaxpr(jaxpr, ())


def invars(jaxpr: Any) -> Sequence[Any]:
    """Return the input variables of an open or closed jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr).invars


def outvars(jaxpr: Any) -> Sequence[Any]:
    """Return the output variables of an open or closed jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr).outvars


def equations(jaxpr: Any) -> Sequence[Any]:
    """Return the equations of an open or closed jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr).eqns


def evaluate(jaxpr: Any, args: Sequence) -> list:
    """Run a jaxpr under the current trace."""
    return [as_array(x) for x in _jax.jaxpr_as_fun(close(jaxpr))(*args)]


def hoist_consts(jaxpr: Any, args: Sequence) -> tuple[Any, list]:
    """Return a closed jaxpr with constants as first inputs, and arguments with these in front."""
    if not jaxpr.consts:
        return jaxpr, list(args)

    def run(consts: list, args: list) -> list:
        return _jax.jaxpr_as_fun(_jax.ClosedJaxpr(jaxpr.jaxpr, consts))(*args)

    return jax.make_jaxpr(run)(list(jaxpr.consts), list(args)), [*jaxpr.consts, *args]


def as_array(value: Any) -> Any:
    """Return an array for what a jaxpr holds as a literal, a typed Python scalar."""
    if isinstance(value, jax.Array):
        return value
    aval = jax.typeof(value)
    return _jax.convert(value, aval.dtype, getattr(aval, "weak_type", False))


_JAXPRS = {_jax.Jaxpr, _jax.ClosedJaxpr}


def has_subjaxpr(params: dict) -> bool:
    """Tell whether an equation has a jaxpr inside; asked of every primitive of a root call."""
    for value in params.values():
        kind = type(value)
        if kind in _JAXPRS or (kind is tuple and any(type(v) in _JAXPRS for v in value)):
            return True
    return False


def only_places(eqn: Any) -> bool:
    """Tell whether an equation changes nothing but on which devices a value is, or may vary."""
    return (
        eqn.primitive.name in ("reshard", "pvary", "pcast") and eqn.invars[0].__hash__ is not None
    )


def holds_loop(eqn: Any) -> bool:
    """Tell whether an equation is a loop, or has one inside."""
    if eqn.primitive in (_jax.SCAN, _jax.WHILE):
        return True
    return any(holds_loop(e) for jaxpr in subjaxprs(eqn.params) for e in equations(jaxpr))


def carried(eqn: Any) -> Sequence[Any]:
    """Return what an equation with a loop may hand from one iteration to the next."""
    if eqn.primitive is not _jax.SCAN:
        return eqn.invars
    num_consts, num_carry = scan_counts(eqn.params)
    return eqn.invars[num_consts : num_consts + num_carry]


def subjaxprs(params: dict) -> Iterator[Any]:
    """Return the jaxprs among the parameters of an equation, open or closed."""
    return _jax.jaxprs_in_params(params)


def scan_counts(params: dict) -> tuple[int, int]:
    """How many constants and carried values a scan has (`ft_in` replaced the counts in 0.11)."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def linear_solve_parts(params: dict, args: Sequence) -> tuple[dict, dict, list]:
    """`(jaxprs, constants, b)` of a `custom_linear_solve`, by the name of the function."""
    names = ("matvec", "vecmat", "solve", "transpose_solve")
    jaxprs = dict(zip(names, params["jaxprs"], strict=True))
    rest, consts = list(args), {}
    for name, count in zip(names, params["const_lengths"], strict=True):
        consts[name], rest = rest[:count], rest[count:]
    return jaxprs, consts, rest


def vmap_rule(params: dict, axis_size: int, batched: list[bool], args: list) -> tuple[list, list]:
    """Run the user's rule of a `custom_vmap` function on flat arguments."""
    tree = params["in_tree"]
    out, out_batched = params["rule"](
        axis_size, jax.tree.unflatten(tree, batched), *jax.tree.unflatten(tree, args)
    )
    return jax.tree.leaves(out), jax.tree.leaves(out_batched)
