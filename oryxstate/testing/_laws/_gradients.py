"""Which laws hold for gradients, and for the same call with more digits?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _tree
from oryxstate.testing._differences import numbers, size_of
from oryxstate.testing._laws import _losses
from oryxstate.testing._laws._case import Case, law
from oryxstate.testing._laws._faults import Fault, NotApplicable

POINTS = 5  # at which a gradient is compared with differences, until it agrees
DIRECTIONS = 2


@law
def finite_gradient(case: Case) -> None:
    """The gradient is finite where the output is."""
    slope = case.slope
    if not all(np.isfinite(numbers(y)).all() for y in _inexact(slope.result[0])):
        raise NotApplicable("the output is not finite")
    for part, tree in zip(_losses.PARTS, slope.gradient, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not np.isfinite(numbers(leaf)).all():
                where = _tree.keystr(path)
                raise Fault(
                    f"`{where}` in {part} is not finite: {np.asarray(leaf)}. A square root or a "
                    "norm at 0 has no derivative; `jnp.where` around its argument helps, around "
                    "its result does not."
                )


@law
def gradient_is_difference(case: Case) -> None:
    """The gradient is the limit of differences of outputs.

    It is compared with central differences in random directions, in float64 if the module runs in
    it, at the inputs given and then, since these may lie on a kink as of `relu` at 0, at a few
    random points nearby: it must agree at one of them. A gradient that is meant to be another, by
    `lax.stop_gradient` or a straight-through estimator, is a reason to skip this law.
    """
    try:
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            _expect_differences(widened(case))
    except (Fault, NotApplicable):
        raise
    except Exception:  # it is made for float32, as one with counters that JAX would widen
        _expect_differences(case)


def _expect_differences(case: Case) -> None:
    if "f16[" in case.program:  # and bf16
        raise NotApplicable("it computes in half precision, where differences say nothing")
    step = float(np.finfo("float32" if "f32[" in case.program else "float64").eps) ** (1 / 3)
    at, rest = _losses.split(case.module, case.inputs)
    derivative = _losses.derivative(case.run)
    random = np.random.default_rng(0)
    text = ""
    for attempt in range(POINTS):
        point = _moved(at, _direction(at, random), 0.0 if attempt == 0 else 10 * step)
        slope = _losses.differentiated(derivative, point, rest)
        if not _is_finite((slope.value, slope.gradient)):
            continue
        text = _disagreement(lambda t: derivative(t, rest)[0][0], point, slope, step, random)
        if not text:
            return
    if not text:
        raise NotApplicable("output or gradient is not finite")
    raise Fault(
        f"{text} If it is meant so (`lax.stop_gradient`, a straight-through estimator), skip this "
        "law: `skip=['gradient_is_difference']`."
    )


def _disagreement(value: Callable[..., Any], at: Any, slope: Any, step: float, random: Any) -> str:
    """A direction in which the gradient is not the difference, in words; empty if it always is."""
    size = float(np.sqrt(sum(np.sum(np.abs(numbers(g)) ** 2) for g in jax.tree.leaves(slope[2]))))
    for _ in range(DIRECTIONS):
        way = _direction(at, random)

        def difference(h: float, way: Any = way) -> float:
            return float(value(_moved(at, way, h)) - value(_moved(at, way, -h))) / (2 * h)

        pairs = zip(jax.tree.leaves(slope.gradient), jax.tree.leaves(way), strict=True)
        want = float(sum(np.sum(np.asarray(g) * d).real for g, d in pairs))
        got, finer = difference(step), difference(step / 2)
        allowed = 10 * step * (size + step * max(1.0, abs(float(slope.value))))
        if not abs(got - want) <= allowed + 3 * abs(got - finer):
            return (
                f"along a random direction the output changes by {got:.6g}, but by the gradient "
                f"it would change by {want:.6g}."
            )
    return ""


def _direction(at: Any, random: Any) -> Any:
    return jax.tree.map(lambda x: random.normal(size=np.shape(x)), at)


def _moved(at: Any, way: Any, by: float) -> Any:
    return jax.tree.map(lambda x, d: np.asarray(x) + np.asarray(by * d, x.dtype), at, way)


def _is_finite(tree: Any) -> bool:
    return all(np.isfinite(numbers(leaf)).all() for leaf in jax.tree.leaves(tree))


def _inexact(tree: Any) -> list[Any]:
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


@law
def float64_agreement(case: Case) -> None:
    """In float64 a call gives nearly what it gives in the precision it has."""
    if case.draws:
        raise NotApplicable("it draws random numbers, which differ by precision")
    given = case.jitted(case.module, case.inputs)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wide = widened(case)
        precise = wide.jitted(wide.module, wide.inputs)
        half = re.search(r"bf16\[", case.program) or re.search(r"f16\[", case.program)
        kind = {None: "float32", "bf16[": "bfloat16", "f16[": "float16"}[half and half.group()]
        tolerance = case.tolerance or float(jnp.finfo(kind).eps) ** 0.5
        for part, mine, other in zip(("output", "updated module"), precise, given, strict=True):
            _expect_near(part, mine, other, tolerance)


def _expect_near(part: str, precise: Any, given: Any, tolerance: float) -> None:
    pairs = zip(jax.tree_util.tree_leaves_with_path(precise), jax.tree.leaves(given), strict=True)
    for (path, mine), other in pairs:
        if not jnp.issubdtype(jnp.result_type(other), jnp.inexact):
            continue
        mine, other = numbers(jnp.asarray(mine)), numbers(jnp.asarray(other))
        apart = np.abs(np.where(np.isfinite(mine) & np.isfinite(other), mine - other, 0.0))
        if (apart > tolerance * size_of(mine)).any():
            index = np.unravel_index(np.argmax(apart), apart.shape)
            where = f"`{_tree.keystr(path)}` of the {part}" if path else f"the {part}"
            raise Fault(
                f"{where} is {mine[index]} in float64, but {other[index]} in its own dtype."
            )


def widened(case: Case) -> Case:
    """The case with all floating-point arrays in float64."""

    def widen(leaf: Any) -> Any:
        if not _tree.is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        return jnp.asarray(leaf).astype(jnp.complex128 if is_complex else jnp.float64)

    fields = {name: jax.tree.map(widen, getattr(case, name)) for name in ("module", "args")}
    kwargs = {key: jax.tree.map(widen, value) for key, value in case.kwargs.items()}
    return dataclasses.replace(case, **fields, kwargs=kwargs, _traces=[])
