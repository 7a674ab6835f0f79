"""Laws that relate a call to the same call under a JAX transformation.

Those after `jit_is_eager` compare with jitted calls, which compile once for all laws.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from oryxstate import _api, _tree
from oryxstate._errors import EffectError
from oryxstate._module._base import Module
from oryxstate._module._pytree import modules
from oryxstate.testing._differences import is_key
from oryxstate.testing._laws import _losses
from oryxstate.testing._laws._calls import buffers, plain
from oryxstate.testing._laws._case import COUNT, Case, Run, expect_same, law, stacked
from oryxstate.testing._laws._faults import Fault, NotApplicable, gist
from oryxstate.testing._laws._trees import static_difference
from oryxstate.testing._walk import has_batched_rule


@law(kinds=["module"], otherwise="it has no `update` beside its call")
def call_is_part(case: Case) -> None:
    """`call` and `update` are the two parts of `call_and_update`."""
    want = plain(case)

    def parts(module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if isinstance(module, Module):
            return module(*args, **kwargs), module.update(*args, **kwargs)
        return _api.call(module, *args, **kwargs), _api.update(module, *args, **kwargs)

    got = case.run(case.module, case.inputs, parts)
    expect_same(case, got, want, ("of `call` and `update`", "of `call_and_update`"))


@law
def jit_is_eager(case: Case) -> None:
    """Under `jax.jit` a call gives what it gives without."""
    got = case.jitted(case.module, case.inputs)
    expect_same(case, got, plain(case), ("under `jax.jit`", "without"))


@law
def no_retrace(case: Case) -> None:
    """A jitted call of the updated module is not traced again."""
    _, new = case.jitted(case.module, case.inputs)
    traces: list[None] = []

    def run(module: Any, inputs: Any) -> tuple[Any, Any]:
        traces.append(None)
        return case.run(module, inputs)

    fresh = jax.jit(run)  # other cases may have traced the shared program for the update
    fresh.trace(case.module, case.inputs)
    before = len(traces)
    fresh.trace(new, case.inputs)
    if len(traces) > before:
        why = static_difference(new, case.module)
        raise Fault(
            f"the second call was traced again{f', since {why}' if why else ''}. What calls change "
            f"is state: {_as_state(case)}"
        )


def _as_state(case: Case) -> str:
    if case.adapted is None or case.adapted.kind == "module":
        return "declare the field `ox.state()`."
    return "keep it in an array, of a shape and dtype that stay."


@law
def donation_safe(case: Case) -> None:
    """The module can be donated to a jitted call: no two leaves share a buffer."""
    leaves = [
        (path, buffers(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(case.module)
    ]
    for (path, own), (other, others) in itertools.combinations(leaves, 2):
        if own & others:
            first, second = _tree.keystr(path), _tree.keystr(other)
            raise Fault(
                f"`{first}` and `{second}` share one buffer, which cannot be donated twice. Give "
                f"one of them an array of its own: `jnp.copy`."
            )
    mine = jax.tree.map(lambda leaf: leaf.copy(), case.module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        got = case.compiled(_same, donate=True)(mine, case.inputs)
    expect_same(case, got, case.jitted(case.module, case.inputs), ("when donated", "when not"))


@law
def checkpoint_is_plain(case: Case) -> None:
    """Under `jax.checkpoint` outputs, updates and gradients are those without."""
    want = case.jitted(case.module, case.inputs)
    ways = "under `jax.checkpoint`", "without"
    try:
        value = case.slope
    except NotApplicable:
        got = case.compiled(_checkpointed)(case.module, case.inputs)
        expect_same(case, got, want, ways)
        return
    at, rest = _losses.split(case.module, case.inputs, case.partition)
    slope = _losses.differentiated(case.compiled(_checkpointed_gradient), at, rest)
    expect_same(case, slope.result, want, ways)
    expect_same(case, slope.gradient, value.gradient, ways, parts=_losses.PARTS)


@law
def scan_is_loop(case: Case) -> None:
    """Steps in a `lax.scan` with the module as carry are those of a Python loop."""
    module, ys = case.module, []
    for inputs in case.examples:
        y, module = case.jitted(module, inputs)
        ys.append(y)
    end, outs = case.compiled(_scanned)(case.module, stacked(case.examples))
    expect_same(case, (outs, end), (stacked(ys), module), ("in `lax.scan`", "in a loop"))


@law
def vmap_is_loop(case: Case) -> None:
    """Under `jax.vmap` each example gives what it gives alone."""
    reason = _mixes_examples(case)
    if reason:
        raise NotApplicable(reason)
    want = stacked([case.jitted(case.module, inputs) for inputs in case.examples])
    try:
        got = case.compiled(_mapped)(case.module, stacked(case.examples))
    except (EffectError, NotImplementedError) as error:
        raise NotApplicable(f"it cannot be mapped over examples: {gist(error)}") from error
    expect_same(case, got, want, ("under `jax.vmap`", "in a loop"))


def _mixes_examples(case: Case) -> str:
    """Say why an example may differ from the same example alone; empty if it may not."""
    if not jax.tree.leaves(case.inputs):
        return "no argument is an array, so there are no examples to map over"
    if case.batched or (has_batched_rule(case.module) and case.kwargs.get("training") is not False):
        return "its examples are computed together, as a batch"
    if case.draws or _gives_keys(case):
        return "it draws random numbers, which differ by example"
    infos = [
        info for _, module in modules(case.module) for info in module.__layout__.infos.values()
    ]
    if any(info.reduce for info in infos):
        return "its state combines what examples write (`reduce=`)"
    return ""


def _gives_keys(case: Case) -> bool:
    """Return whether random keys, typed or not, are among the outputs."""
    leaves = map(jax.typeof, jax.tree.leaves(plain(case)))
    keys = any(is_key(leaf) or leaf.dtype == np.uint32 for leaf in leaves)
    return keys and "random_" in case.program


# What is compiled, once for the cases of a model -------------------------------------------------


def _same(run: Run) -> Run:
    return run


def _checkpointed(run: Run) -> Run:
    return jax.checkpoint(run)


def _checkpointed_gradient(run: Run) -> Callable[..., Any]:
    return _losses.gradient(jax.checkpoint(run))


def _scanned(run: Run) -> Callable[..., Any]:
    def step(module: Any, inputs: Any) -> tuple[Any, Any]:
        y, module = run(module, inputs)
        return module, y

    return lambda module, xs: lax.scan(step, module, xs, length=COUNT)


def _mapped(run: Run) -> Callable[..., Any]:
    return jax.vmap(run, (None, 0))
