"""The law of gradients through state that is threaded from call to call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oryxstate._errors import EffectError
from oryxstate.testing._differences import numbers
from oryxstate.testing._laws import _gradients, _losses
from oryxstate.testing._laws._case import Case, expect_same, law
from oryxstate.testing._laws._faults import Fault, NotApplicable, gist

CALLS = 2


@law(kinds=_gradients.MODELS, otherwise=_gradients.OPTIMIZER)
def gradient_across_calls(case: Case) -> None:
    """Gradients through threaded state agree: of a loop, a scan, forward mode, differences.

    The second of two calls starts from the updated module of the first. Differentiated are the
    outputs of both, with respect to params, floating-point state and arguments. Backpropagation
    through the calls in a Python loop, and with the module as the carry of a `lax.scan`, gives one
    gradient, and `jax.jvp` gives its component in a random direction. Wherever the call stops no
    gradient with `lax.stop_gradient`, it is the limit of differences of the outputs.
    """
    if not jax.tree.leaves(_gradients.inexact(case.partition(case.module)[1])):
        raise NotApplicable("none of its state is a floating-point number")
    _gradients.expect_full_precision(case)
    try:
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            examples = _gradients.widen(case.examples[:CALLS])
            _expect_one_gradient(_gradients.widened(_with_tolerance(case)), examples)
    except Fault:
        raise
    except Exception:  # it only runs in float32, or does not apply there either
        _expect_one_gradient(case, case.examples[:CALLS])


def _with_tolerance(case: Case) -> Case:
    """Fix the tolerance, which depends on the dtype by default."""
    if case.tolerance is not None:
        return case
    return dataclasses.replace(case, tolerance=_gradients.lowest_epsilon(case) ** (2 / 3))


def _expect_one_gradient(case: Case, examples: list[Any]) -> None:
    at, rest = _losses.split(case.module, examples, case.partition, with_state=True)
    loop = case.compiled(_loop_gradient, quick=True)
    slope = _differentiated(loop, at, rest)
    got = _losses.differentiated(case.compiled(_scan_gradient, quick=True), at, rest)
    ways = "through calls in a `lax.scan`", "through calls in a loop"
    expect_same(case, got.gradient, slope.gradient, ways, parts=_losses.PARTS)
    _expect_forward(case, at, rest, slope)
    if "stop_gradient" not in case.program:
        _expect_differences(case, loop, at, rest)


def _loop(run: Callable[..., Any]) -> Callable[..., Any]:
    def calls(module: Any, examples: list[Any]) -> tuple[Any, Any]:
        ys = []
        for inputs in examples:
            y, module = run(module, inputs)
            ys.append(y)
        return _stacked(ys), module

    return calls


def _scan(run: Callable[..., Any]) -> Callable[..., Any]:
    def step(module: Any, inputs: Any) -> tuple[Any, Any]:
        y, module = run(module, inputs)
        return module, y

    def calls(module: Any, examples: list[Any]) -> tuple[Any, Any]:
        module, ys = lax.scan(step, module, _stacked(examples), length=len(examples))
        return ys, module

    return calls


def _loop_gradient(run: Callable[..., Any]) -> Callable[..., Any]:
    return _losses.gradient(_loop(run))


def _scan_gradient(run: Callable[..., Any]) -> Callable[..., Any]:
    return _losses.gradient(_scan(run))


def _loop_tangent(run: Callable[..., Any]) -> Callable[..., Any]:
    loss = _losses.loss(_loop(run))
    return lambda at, tangent, rest: jax.jvp(lambda p: loss(p, rest)[0], (at,), (tangent,))[1]


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _differentiated(derivative: Callable[..., Any], at: Any, rest: Any) -> _losses.Slope:
    try:
        return _losses.differentiated(derivative, at, rest)
    except EffectError as error:  # such as state that is read in a function with a rule of its own
        raise NotApplicable(f"it cannot be differentiated: {gist(error)}") from error


def _expect_forward(case: Case, at: Any, rest: Any, slope: _losses.Slope) -> None:
    """Compare with forward mode, unless the call has a rule for the backward pass alone."""
    if "custom_vjp" in case.program:
        return
    way = _gradients.direction(at, np.random.default_rng(0))
    tangent = jax.tree.map(lambda x, d: jnp.asarray(d, jnp.result_type(x)), at, way)
    got = case.compiled(_loop_tangent, quick=True)(at, tangent, rest)
    pairs = zip(jax.tree.leaves(slope.gradient), jax.tree.leaves(way), strict=True)
    terms = np.concatenate([(numbers(leaf) * d).real.ravel() for leaf, d in pairs])
    want, size = float(terms.sum()), max(1.0, float(np.abs(terms).sum()))
    tolerance = _with_tolerance(case).tolerance
    if abs(float(got) - want) > (tolerance or 0.0) * size:
        raise Fault(
            f"along a random direction the outputs of {CALLS} calls change by {float(got):.6g} in "
            f"forward mode (`jax.jvp`), but by the gradient they would change by {want:.6g}."
        )


def _expect_differences(case: Case, loop: Callable[..., Any], at: Any, rest: Any) -> None:
    text = _gradients.difference_found(loop, at, rest, _gradients.step_of(case))
    if text:
        raise Fault(
            f"over {CALLS} calls, {text} A rule of a custom derivative must give the derivatives "
            "with respect to state too, and of the new state. If gradients are meant to stop "
            "there, write `lax.stop_gradient`, which this law knows, or skip it: "
            "`skip=['gradient_across_calls']`."
        )
