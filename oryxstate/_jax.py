"""The unstable parts of JAX that oryxstate stands on: all of them, and only here.

What a JAX release may move is one named function or constant of this file; the rest of the package
calls public JAX. `_surface` lists each name, with what it is for; where a name is a class or a
primitive that JAX does not export, it is found through what JAX does export.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from oryxstate import _releases

_releases.check_before_the_import(jax.config)

# ruff: noqa: E402  (the check comes first)
import jax.core
import jax.extend.core as jex
import jax.extend.linear_util as linear_util
import jax.extend.source_info_util as source_info_util
import jax.numpy as jnp
from jax import lax
from jax._src import core as _core
from jax._src import distributed as _distributed
from jax._src import effects as _effects
from jax._src import pjit as _pjit
from jax._src import traceback_util as _traceback_util
from jax._src.config import eager_constant_folding as _eager_constant_folding
from jax.experimental import hijax
from jax.extend.core import primitives
from jax.interpreters import ad, batching, mlir, partial_eval

Effect = jex.Effect
Primitive = jex.Primitive
Trace = jax.core.Trace
Tracer = jax.core.Tracer
Jaxpr = jex.Jaxpr
ClosedJaxpr = jex.ClosedJaxpr
Literal = jex.Literal
WrappedFun = linear_util.WrappedFun
StoreException = linear_util.StoreException
Zero = ad.Zero
jaxpr_as_fun = jex.jaxpr_as_fun
jaxprs_in_params = jex.jaxprs_in_params
set_current_trace = jex.set_current_trace


# Primitives ---------------------------------------------------------------------------------------


def find_primitive(name: str) -> Primitive | None:
    """Return the primitive of this name for which JAX has rules, None if there is none.

    Not all of JAX's primitives are exported, but the tables of their rules are.
    """
    tables = ad.primitive_jvps, partial_eval.dce_rules
    return next((p for table in tables for p in table if p.name == name), None)


def named(name: str) -> Primitive:
    """Return the primitive of this name for which JAX has rules.

    Raises:
        ImportError: if there is none.
    """
    primitive = find_primitive(name)
    if primitive is None:
        raise ImportError(f"JAX {jax.__version__} has no primitive that is called `{name}`")
    return primitive


JIT = primitives.jit_p
SCAN = primitives.scan_p
WHILE = primitives.while_p
COND = primitives.cond_p
REMAT = primitives.remat_p
CUSTOM_JVP = primitives.custom_jvp_call_p
CUSTOM_VJP = primitives.custom_vjp_call_p
LINEAR_SOLVE = primitives.linear_solve_p
CUSTOM_VMAP = named("custom_vmap_call")
SHARD_MAP = named("shard_map")
REMAT_OPT = named("remat_opt")  # the rule of a `custom_vjp` with `optimize_remat`
HI_PRIMITIVE = named("call_hi_primitive")
CALLBACKS = named("pure_callback"), named("io_callback"), named("debug_callback")
EVAL_JAXPR = find_primitive("eval_jaxpr")  # from 0.10.2; in 0.12 it is `primitives.call_p`


# Lines of code ------------------------------------------------------------------------------------


def _hide_lines() -> None:
    """Leave our lines out of the locations of equations and out of filtered tracebacks, as JAX's.

    The package is one entry for each. An entry for each file would show on every error that passes
    a transformation, also without us: JAX asks the file system about each entry for each frame.
    """
    package = os.path.dirname(__file__)
    source_info_util.register_exclusion(package + os.sep)  # what a path begins with
    _traceback_util.register_exclusion(package)


_hide_lines()


# Traces -------------------------------------------------------------------------------------------


def current_trace() -> Trace:
    """Return the trace that gives meaning to primitives just now."""
    return jex.find_top_trace(())


def _kind_inside(transform: Callable[[Callable, Any], Any]) -> tuple[Any, Any]:
    """Return the classes of trace and tracer that a function meets inside a transformation."""
    met: list[tuple[Any, Any]] = []

    def look(x):
        met.append((type(current_trace()), type(x)))
        return x

    # Of an abstract value: an import that computes would start a backend.
    jax.eval_shape(lambda x: transform(look, x), jax.ShapeDtypeStruct((1,), jnp.float32))
    return met[0]


with jax.core.eval_context():
    EvalTrace = type(current_trace())
JVPTrace, JVPTracer = ad.JVPTrace, ad.JVPTracer
LinearizeTrace, LinearizeTracer = _kind_inside(lambda f, x: jax.linearize(f, x)[0])
BatchTrace, BatchTracer = _kind_inside(lambda f, x: jax.vmap(f)(x))


def evaluates(trace: Trace | None) -> bool:
    """Tell whether `trace` computes at once: nothing is being transformed or staged."""
    return isinstance(trace, EvalTrace)


def wraps_parent(trace: Trace) -> bool:
    """Tell whether `trace` (of grad, jvp, vmap) hands every primitive on to a parent trace."""
    return isinstance(trace, (JVPTrace, LinearizeTrace, BatchTrace))


def parent(trace: Any) -> Trace:
    """Return the trace to which `trace` hands primitives."""
    return trace.parent if isinstance(trace, ForwardingTrace) else trace.parent_trace


def is_staged_above(trace: Trace | None, value: Any) -> bool:
    """Tell whether a value belongs to a program that is being staged above this trace."""
    return isinstance(value, Tracer) and _base(value._trace) is not _base(trace)


def _base(trace: Any) -> Any:
    """Return the trace that evaluates or stages what `trace` hands down in the end."""
    while trace is not None and (isinstance(trace, ForwardingTrace) or wraps_parent(trace)):
        trace = parent(trace)
    return trace


def differentiates(trace: Trace) -> bool:
    """Tell whether `trace` computes a derivative."""
    return isinstance(trace, (JVPTrace, LinearizeTrace))


def mapped_axis(trace: Any) -> tuple[Any, int]:
    """Return the name of the axis that a `vmap` maps, and its length."""
    return trace.axis_data.name, trace.axis_data.size


def mapped_mesh_axes() -> frozenset:
    """Return the explicit mesh axes that split the examples of the surrounding `vmap`s."""
    axes = _core.get_axis_env()
    return axes.explicit_mesh_axis_names


def split(trace: Any, value: Any) -> tuple[Any, Any] | None:
    """`(primal, tangent)` or `(values, axis)` of a tracer of this transformation, else None."""
    if not isinstance(value, Tracer) or getattr(value._trace, "tag", None) is not trace.tag:
        return None
    if isinstance(value, BatchTracer):
        return value.val, value.batch_dim
    return value.primal, value.tangent


def join(trace: Trace, part: Any, other: Any) -> Any:
    """Invert `split`."""
    if isinstance(trace, BatchTrace):
        return BatchTracer(trace, part, other)
    kind = JVPTracer if isinstance(trace, JVPTrace) else LinearizeTracer
    return kind(trace, part, other)


class ForwardingTrace(Trace):
    """A trace that hands every primitive to its parent, for subclasses to look at what passes."""

    def __init__(self, parent: Any):
        super().__init__()
        self.parent = parent
        self.requires_low = parent.requires_low

    def stage_value(self, val):
        return self.parent.stage_value(val)

    # `bind_with_trace` has already asked whether the primitive is high-level, as the parent would.

    def process_primitive(self, primitive, tracers, params, /):
        return self.parent.process_primitive(primitive, tracers, params)

    def process_custom_jvp_call(self, primitive, fun, jvp, tracers, /, **params):
        return self.parent.process_custom_jvp_call(primitive, fun, jvp, tracers, **params)

    def process_custom_vjp_call(self, primitive, fun, fwd, bwd, tracers, /, **params):
        return self.parent.process_custom_vjp_call(primitive, fun, fwd, bwd, tracers, **params)

    def process_shard_map(self, primitive, fun, tracers, /, **params):
        return self.parent.process_shard_map(primitive, fun, tracers, **params)

    # Up to JAX 0.11.0: the known part of a loop in a checkpoint is such a call.
    def process_call(self, primitive, fun, tracers, params, /):
        return self.parent.process_call(primitive, fun, tracers, params)


# Evaluation ---------------------------------------------------------------------------------------

# Where an eager call of a jitted function ends, with the parameters of `jit`: it returns outputs,
# an executable that may be kept or None, and two things that go with that.
EAGER_JIT = _pjit, "_pjit_call_impl_python"


def running_impl() -> Primitive | None:
    """Return the primitive whose implementation in Python is running just now, if there is one."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is EvalTrace.process_primitive.__code__:
            return frame.f_locals["primitive"]
        frame = frame.f_back
    return None


def without_constant_folding() -> Any:
    """Return a context in which nothing is evaluated at once in spite of a trace that stages."""
    return _eager_constant_folding(False)


def bind_at(primitive: Primitive, trace: Trace, args: Sequence, params: dict) -> Any:
    """Bind at a trace that is not the current one."""
    with set_current_trace(trace):  # `bind` takes it away: what evaluates must not find another
        return primitive.bind(*args, **params)


def convert(value: Any, dtype: Any, weak_type: bool) -> Any:
    """Cast to a dtype and to a weak or strong type."""
    if not weak_type:
        return lax.convert_element_type(value, dtype)
    value = jnp.asarray(value)
    if value.dtype == dtype and value.weak_type:
        return value
    return primitives.convert_element_type_p.bind(
        value, new_dtype=dtype, weak_type=True, sharding=None
    )


# Effects ------------------------------------------------------------------------------------------


def allow_effect(kind: type[Effect]) -> None:
    """Let effects of this type stand in loops, branches, checkpoints and custom derivatives.

    `lowerable_effects` only lets them reach our own lowering rule, which refuses them by name.
    """
    for allowed in (
        hijax.control_flow_allowed_effects,
        _effects.remat_allowed_effects,
        _effects.custom_derivatives_allowed_effects,
        mlir.lowerable_effects,
        _effects.partial_eval_kept_effects,
    ):
        allowed.add_type(kind)


def define_primitive(
    primitive: Primitive, *, impl: Callable, abstract_eval: Callable, jvp: Callable, batch: Callable
) -> None:
    """Register the rules of an effectful primitive; lowering calls `impl`, which must refuse."""
    _define(primitive, impl, jvp, batch)
    primitive.def_effectful_abstract_eval(abstract_eval)
    mlir.register_lowering(primitive, lambda ctx, *args, **params: impl(*args, **params))


def define_pure_primitive(
    primitive: Primitive, *, impl: Callable, abstract_eval: Callable, jvp: Callable, batch: Callable
) -> None:
    """Register the rules of a primitive without effects; what is compiled is what `impl` does."""

    def batch_if_mapped(axis_name, args, dims, **params):
        if all(dim is None for dim in dims):
            out = primitive.bind(*args, **params)
            return out, [None] * len(out)
        return batch(axis_name, args, dims, **params)

    _define(primitive, impl, jvp, batch_if_mapped)
    primitive.def_abstract_eval(abstract_eval)
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=True))


def _define(primitive: Primitive, impl: Callable, jvp: Callable, batch: Callable) -> None:
    primitive.multiple_results = True
    primitive.def_impl(impl)
    ad.primitive_jvps[primitive] = jvp
    batching.fancy_primitive_batchers[primitive] = lambda axis, args, dims, **params: batch(
        axis.name, args, dims, **params
    )


def is_mapped(value: Any) -> bool:
    """Tell whether a value depends on the axis of the innermost `vmap`."""
    return isinstance(value, BatchTracer) and value._trace is current_trace()


# Donation -----------------------------------------------------------------------------------------


def is_deletion(error: Exception) -> bool:
    """Tell whether JAX raised because the memory of an array is gone, deleted or donated.

    A RuntimeError or a ValueError, by whether Python or XLA notices first.
    """
    return "has been deleted" in str(error)


# Processes ----------------------------------------------------------------------------------------


def processes() -> tuple[Any, int, int]:
    """Return the client of the coordinator, the number of this process, and how many there are.

    Without `jax.distributed` there is one process, and no client. This does not start a backend.
    """
    state = _distributed.global_state
    if state.client is None:
        return None, 0, 1
    return state.client, state.process_id, state.num_processes or 1
