"""Laws of gradients, and of the same call in higher precision."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _tree
from oryxstate.testing._adapters import Kind
from oryxstate.testing._differences import numbers, size_of
from oryxstate.testing._laws import _losses
from oryxstate.testing._laws._case import PARTS, Case, law
from oryxstate.testing._laws._conditioning import spread
from oryxstate.testing._laws._faults import Fault, NotApplicable, gist

MODELS: tuple[Kind, ...] = ("module", "pytree", "functions")
OPTIMIZER = "the updates of an optimizer are rarely differentiated"
POINTS = 5  # a gradient is compared with differences at these, until it agrees
DIRECTIONS = 2
FACTORIZES = re.compile(r"= (cholesky|lu|qr|geqrf|householder_product|eigh?|svd|schur|\w+_solve)\b")
ROUNDINGS = 64  # of one computation: it may err by as many movements of its result


@law(kinds=MODELS, otherwise=OPTIMIZER)
def finite_gradient(case: Case) -> None:
    """The gradient is finite where the output is."""
    slope = case.slope
    if not all(np.isfinite(numbers(y)).all() for y in inexact(slope.result[0])):
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


@law(kinds=MODELS, otherwise=OPTIMIZER)
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
    except Fault:
        raise
    except Exception:  # it only runs in float32: a check of dtypes, a counter that is widened
        _expect_differences(case)


def _expect_differences(case: Case) -> None:
    expect_full_precision(case)
    at, rest = _losses.split(case.module, case.inputs, case.partition)
    text = difference_found(case.compiled(_losses.gradient, quick=True), at, rest, step_of(case))
    if text:
        raise Fault(
            f"{text} If it is meant so (`lax.stop_gradient`, a straight-through estimator), skip "
            "this law: `skip=['gradient_is_difference']`."
        )


def expect_full_precision(case: Case) -> None:
    """Raise `NotApplicable` for a computation in half precision."""
    if "f16[" in case.program:  # and bf16
        raise NotApplicable("it computes in half precision, where differences say nothing")


def step_of(case: Case) -> float:
    """Return the step of central differences."""
    return lowest_epsilon(case) ** (1 / 3)


def difference_found(derivative: Callable[..., Any], at: Any, rest: Any, step: float) -> str:
    """Compare a gradient with differences at several points; it must agree at one of them.

    Args:
        derivative: `_losses.gradient` of a call, jitted.
        at: what it differentiates with respect to.
        rest: its other argument.
        step: of the differences.

    Returns:
        How they disagree, in words; empty if they agree.

    Raises:
        NotApplicable: if they can be compared at fewer than two points.
    """
    random = np.random.default_rng(0)
    texts = []
    for attempt in range(POINTS):
        point = moved(at, direction(at, random), 0.0 if attempt == 0 else 10 * step)
        slope = _losses.differentiated(derivative, point, rest)
        text = _disagreement(lambda t: derivative(t, rest)[0][0], point, slope, step, random)
        if text == "":
            return ""
        texts += [text] if text else []
    if len(texts) < 2:  # the only one may be a kink
        raise NotApplicable("output or gradient is not finite nearby")
    return texts[-1]


def _disagreement(
    value: Callable[..., Any], at: Any, slope: _losses.Slope, step: float, random: Any
) -> str | None:
    """Describe a direction in which the gradient and the difference disagree.

    Empty if there is none, and None if anything is not finite.
    """
    gradient = [numbers(leaf) for leaf in jax.tree.leaves(slope.gradient)]
    size = float(np.sqrt(sum(np.sum(np.abs(leaf) ** 2) for leaf in gradient)))
    for _ in range(DIRECTIONS):
        way = direction(at, random)

        def difference(h: float, way: Any = way) -> float:
            return float(value(moved(at, way, h)) - value(moved(at, way, -h))) / (2 * h)

        pairs = zip(gradient, jax.tree.leaves(way), strict=True)
        want = float(sum(np.sum(leaf * d).real for leaf, d in pairs))
        got, finer = difference(step), difference(step / 2)
        if not np.isfinite([want, got, finer]).all():
            return None
        allowed = 10 * step * (size + step * max(1.0, abs(float(slope.value))))
        if abs(got - want) > allowed + 3 * abs(got - finer):
            return (
                f"along a random direction the output changes by {got:.6g}, but by the gradient "
                f"it would change by {want:.6g}."
            )
    return ""


def direction(at: Any, random: Any) -> Any:
    """Return random numbers in the shapes of a pytree."""
    return jax.tree.map(lambda x: random.normal(size=np.shape(x)), at)


def moved(at: Any, way: Any, by: float) -> Any:
    """Return the point that lies `by` away from another in a direction."""
    return jax.tree.map(lambda x, d: np.asarray(x) + np.asarray(by * d, x.dtype), at, way)


def inexact(tree: Any) -> list[Any]:
    """Return the floating-point and complex leaves of a pytree."""
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


@law
def float64_agreement(case: Case) -> None:
    """In float64 a call gives nearly what it gives in the precision it has.

    Where results are far apart, they may be as far as the result in float64 moves if module and
    inputs are rounded otherwise: the fault is then in the numbers, not in the computation. Where a
    matrix is factorized, as far as the result in its own precision moves.
    """
    if case.draws:
        raise NotApplicable("it draws random numbers, which differ by precision")
    given = case.jitted(case.module, case.inputs)
    x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wide = widened(case)
        try:
            precise = wide.jitted(wide.module, wide.inputs)
        except Exception as error:  # of an update that would be widened too, or a check of dtypes
            raise NotApplicable(f"it does not run in float64: {gist(error)}") from error
        tolerance = lowest_epsilon(case) ** 0.5 if case.tolerance is None else case.tolerance
        if _far(precise, given, tolerance):
            text = _far(precise, given, tolerance, _movements(case, wide, x64))
            if text:
                raise Fault(text)


def _movements(case: Case, wide: Case, x64: bool) -> list[np.ndarray]:
    """Return how far each leaf of the result moves when module and inputs are rounded otherwise.

    Of a matrix that is factorized, the condition shows in the precision of the model alone.

    Args:
        case: in the precision of the model.
        wide: in float64.
        x64: whether the former may have arrays in float64, too.
    """
    epsilon = lowest_epsilon(case)
    moves = spread(lambda at: wide.jitted(*at), (wide.module, wide.inputs), epsilon)
    if FACTORIZES.search(case.program):
        with jax.enable_x64(x64):
            own = spread(lambda at: case.jitted(*at), (case.module, case.inputs), epsilon)
        moves = [np.maximum(*pair) for pair in zip(moves, own, strict=True)]
    return moves


def lowest_epsilon(case: Case) -> float:
    """Return the epsilon of the least precise dtype in the computation."""
    kinds = {"bf16[": jnp.bfloat16, "f16[": jnp.float16, "f32[": jnp.float32, "": jnp.float64}
    return next(float(jnp.finfo(kind).eps) for text, kind in kinds.items() if text in case.program)


def _far(precise: Any, given: Any, tolerance: float, moves: Any = None) -> str:
    """Describe the first leaf of a result that is far from the precise one; empty if none is.

    Args:
        precise: the result in float64.
        given: the result in the precision of the model.
        tolerance: how far they may be apart, in parts of the largest number of the leaf, or of 1.
        moves: how far each leaf moves when module and inputs are rounded otherwise.
    """
    leaves, others = jax.tree_util.tree_leaves_with_path(precise), jax.tree.leaves(given)
    moves = [0.0] * len(leaves) if moves is None else moves
    for (path, mine), other, move in zip(leaves, others, moves, strict=True):
        if not jnp.issubdtype(jnp.result_type(other), jnp.inexact):
            continue
        mine, other = numbers(jnp.asarray(mine)), numbers(jnp.asarray(other))
        apart = np.abs(np.where(np.isfinite(mine) & np.isfinite(other), mine - other, 0.0))
        excess = apart - tolerance * size_of(mine) - ROUNDINGS * move
        if (excess > 0).any():
            index = np.unravel_index(np.argmax(excess), apart.shape)
            part, inner = PARTS[path[0].idx], _tree.keystr(path[1:])
            return (
                f"{f'`{inner}` of {part}' if inner else part} is {mine[index]} in float64, but "
                f"{other[index]} in its own dtype. The computation loses digits, such as in a "
                "difference of large numbers or in a sum of many: the inputs' own rounding does "
                "not move the result as far. Compute it in another order, or accept it: "
                "`tolerance=`, or `skip=['float64_agreement']`."
            )
    return ""


def widened(case: Case) -> Case:
    """Return the case with all floating-point arrays in float64."""
    fields = {name: widen(getattr(case, name)) for name in ("module", "args")}
    kwargs = {key: widen(value) for key, value in case.kwargs.items()}
    return dataclasses.replace(case, **fields, kwargs=kwargs)


def widen(tree: Any) -> Any:
    """Return a pytree with its floating-point arrays in float64."""

    def wide(leaf: Any) -> Any:
        if not _tree.is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        return jnp.asarray(leaf).astype(jnp.complex128 if is_complex else jnp.float64)

    return jax.tree.map(wide, tree)
