"""The unstable parts of JAX that oryxstate stands on: all of them, and only here.

Covers JAX 0.10 to 0.12. Everything that a JAX release may move is one named function or constant of
this file; the rest of the package calls public JAX.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

SUPPORTED = (0, 10), (0, 13)  # from, and below


def check_version(version: tuple[int, ...]) -> None:
    """Refuse a JAX that this file does not know, before anything of it is missing.

    Raises:
        ImportError: naming the range and what was found.
    """
    first, end = SUPPORTED
    if not first <= version[:2] < end:
        found = ".".join(map(str, version))
        raise ImportError(
            f"oryxstate works with JAX {first[0]}.{first[1]} to {end[0]}.{end[1] - 1}, but JAX "
            f"{found} is installed. Run `pip install 'jax>={first[0]}.{first[1]},"
            f"<{end[0]}.{end[1]}'`."
        )


def check_flags(config: Any) -> None:
    """Refuse an implementation of JAX that has no rule, before it loses an update.

    Raises:
        ImportError: naming the flag.
    """
    if getattr(config, "jax_scan3", False):
        raise ImportError(
            "oryxstate does not work with JAX_SCAN3=1, an implementation of `lax.scan` that JAX "
            "has not finished. Unset it, or `jax.config.update('jax_scan3', False)` before the "
            "import."
        )


check_version(jax.__version_info__)
check_flags(jax.config)

# ruff: noqa: E402  (the version comes first)
import jax.core
import jax.extend.core as jex
import jax.extend.linear_util as linear_util
import jax.extend.source_info_util as source_info_util
import jax.numpy as jnp
import numpy as np
from jax._src import core as _core  # trace_ctx; jax.extend can only take the trace away and back
from jax._src import effects as _effects  # the allow-lists of effect types have no public name
from jax._src import hijax as _hijax  # the primitive behind `custom_root` from 0.11
from jax._src import pjit as _pjit  # what an eager call of a jitted function comes to
from jax._src import traceback_util as _traceback_util  # Equinox registers its files there too
from jax._src.callback import io_callback_p, pure_callback_p  # not among the public primitives
from jax._src.config import eager_constant_folding as _eager_constant_folding
from jax._src.custom_batching import custom_vmap_p  # not among jax.extend.core.primitives
from jax._src.custom_derivatives import remat_opt_p  # not among the public primitives
from jax._src.debugging import debug_callback_p  # not among the public primitives
from jax._src.interpreters import ad as _ad  # LinearizeTrace and LinearizeTracer
from jax._src.interpreters import batching as _batching  # BatchTrace
from jax._src.interpreters import partial_eval as _pe  # eval_jaxpr
from jax._src.lax.lax import _convert_element_type  # the only cast that can give a weak type
from jax._src.shard_map import shard_map_p  # not among jax.extend.core.primitives
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import primitives
from jax.interpreters import ad, mlir

Effect = jex.Effect
Primitive = jex.Primitive
Trace = jax.core.Trace
Tracer = jax.core.Tracer
set_current_trace = jex.set_current_trace

JIT = primitives.jit_p
SCAN = primitives.scan_p
WHILE = primitives.while_p
COND = primitives.cond_p
REMAT = primitives.remat_p
CUSTOM_JVP = primitives.custom_jvp_call_p
CUSTOM_VJP = primitives.custom_vjp_call_p
LINEAR_SOLVE = primitives.linear_solve_p
EVAL_JAXPR = getattr(_pe, "eval_jaxpr_p", None)  # calls functions of `custom_root` from 0.11
HI_PRIMITIVE = _hijax.call_hi_primitive_p
SHARD_MAP = shard_map_p
CUSTOM_VMAP = custom_vmap_p
REMAT_OPT = remat_opt_p  # the rule of a `custom_vjp` with `optimize_remat`
CALLBACKS = pure_callback_p, io_callback_p, debug_callback_p


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
    """The trace that gives meaning to primitives just now."""
    return _core.trace_ctx.trace


def evaluates(trace: Trace | None) -> bool:
    """Whether `trace` computes at once: nothing is being transformed or staged."""
    return isinstance(trace, _core.EvalTrace)


def wraps_parent(trace: Trace) -> bool:
    """Whether `trace` (of grad, jvp, vmap) hands every primitive on to a parent trace."""
    return isinstance(trace, (ad.JVPTrace, _ad.LinearizeTrace, _batching.BatchTrace))


def parent(trace: Any) -> Trace:
    """The trace to which `trace` hands primitives."""
    return trace.parent if isinstance(trace, ForwardingTrace) else trace.parent_trace


def is_staged_above(trace: Trace | None, value: Any) -> bool:
    """Whether a value belongs to a program that is being staged above this trace."""
    return isinstance(value, Tracer) and _base(value._trace) is not _base(trace)


def _base(trace: Any) -> Any:
    """The trace that evaluates or stages what `trace` hands down in the end."""
    while trace is not None and (isinstance(trace, ForwardingTrace) or wraps_parent(trace)):
        trace = parent(trace)
    return trace


def differentiates(trace: Trace) -> bool:
    """Whether `trace` computes a derivative."""
    return isinstance(trace, (ad.JVPTrace, _ad.LinearizeTrace))


def split(trace: Any, value: Any) -> tuple[Any, Any] | None:
    """`(primal, tangent)` or `(values, axis)` of a tracer of this transformation, else None."""
    if not isinstance(value, Tracer) or getattr(value._trace, "tag", None) is not trace.tag:
        return None
    if isinstance(value, _batching.BatchTracer):
        return value.val, value.batch_dim
    return value.primal, value.tangent


def join(trace: Trace, part: Any, other: Any) -> Any:
    """The inverse of `split`."""
    if isinstance(trace, _batching.BatchTrace):
        return _batching.BatchTracer(trace, part, other)
    kind = ad.JVPTracer if isinstance(trace, ad.JVPTrace) else _ad.LinearizeTracer
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

    def process_call(self, primitive, fun, tracers, params, /):
        return self.parent.process_call(primitive, fun, tracers, params)


# Interception -------------------------------------------------------------------------------------


class _Replacement:
    """An attribute of an object of JAX for which ours stands in while a frame is open.

    Attributes:
        attributes: those of the object itself, where ours is put and taken away: not by `setattr`,
            which takes twice as long, since each eager root call pays for this.
        name: of the attribute.
        theirs: what the object itself has there, None if it comes from its class.
        ours: made by `wrap` from the original.
    """

    __slots__ = ("attributes", "name", "ours", "owner", "theirs", "wrap")

    def __init__(self, owner: Any, name: str, wrap: Callable[[Callable], Callable]):
        self.owner, self.name, self.wrap = owner, name, wrap
        self.attributes = vars(owner)
        self._read()

    def _read(self) -> None:
        self.theirs = self.attributes.get(self.name)
        self.ours = self.wrap(getattr(self.owner, self.name))

    def install_over_another(self) -> None:
        """Put ours in place where something unexpected is: ours, or that of another library."""
        if self.attributes.get(self.name) is not self.ours:
            self._read()
            self.attributes[self.name] = self.ours


_replacements: list[_Replacement] = []
_interception = threading.RLock()  # a finalizer or a signal handler may open a frame meanwhile
_threads = 0  # that have a frame open
_installed = False


def start_intercepting() -> None:
    """Ask the rules from now on, in all threads; once for each later `stop_intercepting`."""
    global _threads, _installed
    with _interception:
        _threads += 1
        if not _installed:
            for one in _replacements:
                if one.attributes.get(one.name) is one.theirs:
                    one.attributes[one.name] = one.ours
                else:
                    one.install_over_another()
            _installed = True


def stop_intercepting() -> None:
    """The inverse of `start_intercepting`; after the last one, JAX is as it was.

    What another library has put over ours meanwhile stays, and goes on calling ours.
    """
    global _threads, _installed
    with _interception:
        _threads -= 1
        if _threads == 0:
            _installed = False
            for one in _replacements:
                if one.attributes.get(one.name) is one.ours:
                    if one.theirs is None:
                        del one.attributes[one.name]
                    else:
                        one.attributes[one.name] = one.theirs


Rule = Callable[[Trace, Sequence, dict], Any]
INTERCEPTED: set[Primitive] = set()


def intercept(primitive: Primitive, rule: Rule) -> None:
    """While a frame is open, ask `rule(trace, args, params)` first whenever `primitive` is bound.

    If the rule returns None, JAX goes on. This change to objects of JAX is made at the only point
    where it can be right: before grad, vmap or jit transform the primitive. A rule that works below
    them would see loops whose tangents or batch axes no longer say where the state is. (JAX
    replaces `remat_p.bind` on the instance in the same way.)
    """

    def wrap(original):
        def bind_with_trace(trace, args, avals, params, /):
            out = rule(trace, args, params)
            return original(trace, args, avals, params) if out is None else out

        return bind_with_trace

    INTERCEPTED.add(primitive)
    _replacements.append(_Replacement(primitive, "bind_with_trace", wrap))


def intercept_eager_jit(touches_state: Callable[[Any], bool]) -> None:
    """While a frame is open, bind an eager call of a jitted function, as transformations do.

    With no trace set, `jax.jit` compiles what it staged without a `bind`. To set one during eager
    root calls would cost JAX's fast path for every small operation in them, five times their price.
    """

    def wrap(original):
        def call(*args, **params):
            if touches_state(params["jaxpr"]):
                return JIT.bind(*args, **params), None, None, []  # no executable to be kept
            return original(*args, **params)

        return call

    _replacements.append(_Replacement(_pjit, "_pjit_call_impl_python", wrap))


def running_impl() -> Primitive | None:
    """The primitive whose implementation in Python is running just now, if there is one."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is _core.EvalTrace.process_primitive.__code__:
            return frame.f_locals["primitive"]
        frame = frame.f_back
    return None


def without_constant_folding() -> Any:
    """A context in which nothing is evaluated at once in spite of a trace that stages."""
    return _eager_constant_folding(False)


# Effects ------------------------------------------------------------------------------------------


def allow_effect(kind: type[Effect]) -> None:
    """Let effects of this type stand in loops, branches, checkpoints and custom derivatives.

    `lowerable_effects` only lets them reach our own lowering rule, which refuses them by name.
    """
    for allowed in (
        _effects.control_flow_allowed_effects,
        _effects.remat_allowed_effects,
        _effects.custom_derivatives_allowed_effects,
        _effects.lowerable_effects,
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
    _batching.fancy_primitive_batchers[primitive] = lambda axis, args, dims, **params: batch(
        axis.name, args, dims, **params
    )


def jvp_of(function: Callable, primals: Sequence, tangents: Sequence) -> tuple[Any, Any]:
    """`jax.jvp` of a function of arrays, in the directions that are not symbolically zero."""
    zeros = ad.Zero, SymbolicZero
    at = [i for i, dot in enumerate(tangents) if not isinstance(dot, zeros)]

    def of_some(*some):
        merged = list(primals)
        for i, x in zip(at, some, strict=True):
            merged[i] = x
        return function(*merged)

    return jax.jvp(of_some, [primals[i] for i in at], [tangents[i] for i in at])


def is_mapped(value: Any) -> bool:
    """Whether a value depends on the axis of the innermost `vmap`."""
    return isinstance(value, _batching.BatchTracer) and value._trace is current_trace()


def zero_tangent(value: Any) -> Any:
    """The symbolic zero tangent of a value."""
    return ad.Zero(jax.typeof(value).to_tangent_aval())


# Jaxprs -------------------------------------------------------------------------------------------


def close(jaxpr: Any) -> Any:
    """A closed jaxpr, also from the open one that `remat` and `shard_map` hold up to JAX 0.11."""
    return jaxpr if hasattr(jaxpr, "consts") else jex.ClosedJaxpr(jaxpr, ())


def invars(jaxpr: Any) -> Sequence[Any]:
    """The input variables of an open or closed jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr).invars


def outvars(jaxpr: Any) -> Sequence[Any]:
    """The output variables of an open or closed jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr).outvars


def equations(jaxpr: Any) -> Sequence[Any]:
    """The equations of an open or closed jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr).eqns


def evaluate(jaxpr: Any, args: Sequence) -> list:
    """Run a jaxpr under the current trace."""
    return [as_array(x) for x in jex.jaxpr_as_fun(close(jaxpr))(*args)]


def hoist_consts(jaxpr: Any, args: Sequence) -> tuple[Any, list]:
    """A closed jaxpr with its constants as first inputs, and its arguments with these in front."""
    if not jaxpr.consts:
        return jaxpr, list(args)

    def run(consts: list, args: list) -> list:
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr.jaxpr, consts))(*args)

    return jax.make_jaxpr(run)(list(jaxpr.consts), list(args)), [*jaxpr.consts, *args]


def as_array(value: Any) -> Any:
    """An array for what a jaxpr holds as a literal, a typed Python scalar."""
    if isinstance(value, jax.Array):
        return value
    aval = jax.typeof(value)
    return convert(value, aval.dtype, getattr(aval, "weak_type", False))


def bind_at(primitive: Primitive, trace: Trace, args: Sequence, params: dict) -> Any:
    """Bind at a trace that is not the current one."""
    with set_current_trace(trace):  # `bind` takes it away: what evaluates must not find another
        return primitive.bind(*args, **params)


_JAXPRS = {jex.Jaxpr, jex.ClosedJaxpr}


def has_subjaxpr(params: dict) -> bool:
    """Whether an equation computes something inside; asked of every primitive of a root call."""
    for value in params.values():
        kind = type(value)
        if kind in _JAXPRS or (kind is tuple and any(type(v) in _JAXPRS for v in value)):
            return True
    return False


def only_places(eqn: Any) -> bool:
    """Whether an equation changes nothing but on which devices a value is, or may vary."""
    return (
        eqn.primitive.name in ("reshard", "pvary", "pcast") and eqn.invars[0].__hash__ is not None
    )


def holds_loop(eqn: Any) -> bool:
    """Whether an equation is a loop, or has one inside."""
    if eqn.primitive in (SCAN, WHILE):
        return True
    return any(holds_loop(e) for jaxpr in subjaxprs(eqn.params) for e in equations(jaxpr))


def carried(eqn: Any) -> Sequence[Any]:
    """What an equation with a loop may hand from one iteration to the next."""
    if eqn.primitive is not SCAN:
        return eqn.invars
    num_consts, num_carry = scan_counts(eqn.params)
    return eqn.invars[num_consts : num_consts + num_carry]


def subjaxprs(params: dict) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation, open or closed."""
    return jex.jaxprs_in_params(params)


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


# Functions on their way into a primitive ----------------------------------------------------------


def call_subfun(fun: Any, args: Sequence) -> Any:
    """Call a function that a primitive was bound with, as often as one likes.

    JAX lets the stores for its output trees be filled once, so they are emptied first.
    """
    if not isinstance(fun, linear_util.WrappedFun):
        return fun(*args)
    _empty_stores(fun)
    return fun.call_wrapped(*args)


def _empty_stores(fun: linear_util.WrappedFun) -> None:
    for store in fun.stores:
        if store is not None:
            store.reset()


_stateless: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def parent_of_unmapped(trace: Trace, args: Sequence, fun: Any) -> Trace | None:
    """The parent of a `vmap` that maps neither the arguments of a function nor its closure.

    JAX's batch trace takes all outputs of a function with a custom derivative to be mapped.
    """
    if not isinstance(trace, _batching.BatchTrace) or any(_is_mapped_at(trace, x) for x in args):
        return None
    consts = jax.make_jaxpr(lambda *xs: call_subfun(fun, xs))(*args).consts
    _empty_stores(fun)
    return None if any(_is_mapped_at(trace, x) for x in consts) else trace.parent_trace


def _is_mapped_at(trace: Trace, value: Any) -> bool:
    return isinstance(value, _batching.BatchTracer) and value._trace is trace


def leave_one_output_tree(subfuns: Sequence) -> None:
    """Keep one output tree of a function and its rule, as when JAX runs one of the two."""
    function, rule = subfuns[:2]
    if any(map(_is_filled, rule.stores)):
        _empty_stores(function)


def _is_filled(store: Any) -> bool:
    try:
        return store is not None and store.val is not store  # reading an empty store raises
    except linear_util.StoreException:
        return False


# Functions with a derivative of their own ---------------------------------------------------------

# One interface to all of JAX's forms of them. They take and return flat lists; `jvp` takes and
# returns symbolic zeros of the public kind.


def symbolic_zero(value: Any) -> SymbolicZero:
    """The tangent of a value that does not change, as rules of custom derivatives return it."""
    return SymbolicZero(jax.typeof(value).to_tangent_aval())


def is_zero(tangent: Any) -> bool:
    """Whether a tangent or cotangent is symbolically zero."""
    return isinstance(tangent, (ad.Zero, SymbolicZero))


def dtype_of(tangent: Any) -> Any:
    """The dtype of a tangent or cotangent, be it symbolically zero."""
    return (tangent.aval if is_zero(tangent) else jax.typeof(tangent)).dtype


def instantiated(tangent: Any) -> Any:
    """A tangent or cotangent as an array."""
    if not is_zero(tangent):
        return tangent
    zeros = np.zeros if tangent.aval.dtype == jax.dtypes.float0 else jnp.zeros
    return zeros(tangent.aval.shape, tangent.aval.dtype)


def _public(tangent: Any) -> Any:
    return SymbolicZero(tangent.aval) if isinstance(tangent, ad.Zero) else tangent


class _Subfuns:
    """A `custom_jvp` or `custom_vjp` function about to be bound."""

    def __init__(self, params: dict):
        self._params = params
        self._function, self._rule, *self._rest = params["subfuns"]
        # The one behind `lax.custom_root`, before 0.11.
        self.is_root = getattr(self._function.f, "__name__", "") == "_custom_root"

    def run(self, args: Sequence) -> Any:
        """What it computes where nothing is differentiated."""
        return call_subfun(self._function, args)

    def stage(self, args: Sequence, keep: Callable[[Any], bool]) -> Any:
        """Its jaxpr, if `keep(jaxpr)`, else None.

        A function that is not kept is staged once for the same static arguments and types, as JAX
        would cache it: most of them are `jax.nn.relu` and its like.
        """
        fun = self._function
        try:
            key = fun.transforms, fun.params, tuple(map(jax.typeof, args))
            hash(key)
            if key in _stateless.get(fun.f, ()):
                return None
        except TypeError:  # not hashable, or not a function that can be remembered
            key = None
        jaxpr = jax.make_jaxpr(lambda *xs: self.run(xs))(*args)
        if keep(jaxpr):
            return jaxpr
        _empty_stores(fun)
        if key is not None:
            _stateless.setdefault(fun.f, set()).add(key)
        return None


class JVPSubfuns(_Subfuns):
    """A `custom_jvp` function about to be bound."""

    has_vjp = False

    def __str__(self) -> str:
        return "custom_jvp"

    def jvp(self, primals: Sequence, tangents: Sequence) -> tuple[Any, Any]:
        """The user's rule."""
        if not self._params["symbolic_zeros"]:
            tangents = [instantiated(t) for t in tangents]
        out = call_subfun(self._rule, [*primals, *tangents])
        return out[: len(out) // 2], out[len(out) // 2 :]


class VJPSubfuns(_Subfuns):
    """A `custom_vjp` function about to be bound."""

    has_vjp, generic_batching = True, False

    def __str__(self) -> str:
        return "custom_vjp"

    def forward(self, primals: Sequence, perturbed: Sequence[bool]) -> tuple[list, Any]:
        """The user's rule for the way there: outputs, and residuals for the way back."""
        pairs = [x for pair in zip(primals, perturbed, strict=True) for x in pair]
        flat = call_subfun(self._rule, pairs)
        *_, inputs = self._params["out_trees"]()
        kept = iter(flat)  # residuals that are not inputs, then outputs
        residuals = [next(kept) if i is None else primals[i] for i in inputs]
        return list(kept), residuals

    def backward(self, residuals: Any, cotangents: Sequence) -> tuple[list, Any]:
        """The user's rule for the way back: cotangents of all inputs, and logs."""
        if not self._params["symbolic_zeros"]:
            cotangents = [instantiated(t) for t in cotangents]
        out = call_subfun(self._rest[0], [*residuals, *cotangents])
        out, logs = out if isinstance(out, tuple) else (out, None)  # a pair from 0.11
        return [None if is_zero(x) else x for x in out], logs


def define_vjp(function: Any, forward: Callable, backward: Callable, like: Any) -> None:
    """Give a `custom_vjp` function rules; `backward` returns cotangents and logs."""
    options = {"generic_batching": True} if like.generic_batching else {}
    if hasattr(function, "defvjp_with_logs"):  # from 0.12
        function.defvjp_with_logs(forward, backward, symbolic_zeros=True, **options)
    else:
        function.defvjp(forward, lambda *args: backward(*args)[0], symbolic_zeros=True)


class HiPrimitive:
    """A high-level primitive about to be bound.

    Its `jvp` and its rules take the structured arguments it was called with.
    """

    def __init__(self, params: dict):
        self._prim = prim = params["_prim"]
        self._kind = type(prim).__name__
        # Up to 0.11 not all of them say which effects their jaxprs have.
        jaxprs = [getattr(value, "jaxpr", value) for value in prim.params.values()]
        self.effects = prim.effects.union(*(getattr(x, "effects", ()) for x in jaxprs))
        self.is_root = self._kind == "CustomRoot"
        self.has_vjp = self._kind == "CustomVJPTraced"
        self.generic_batching = getattr(prim, "generic_batching", False)

    def __str__(self) -> str:
        return {"CustomJVPTraced": "custom_jvp", "CustomVJPTraced": "custom_vjp"}.get(
            self._kind, self._kind
        )

    @property
    def checkpoint(self) -> dict | None:
        """The parameters of `remat`, if it is the new `jax.checkpoint`."""
        names = ("jaxpr", "policy", "prevent_cse")
        is_remat = self._kind == "RematTraced"
        return {name: getattr(self._prim, name) for name in names} if is_remat else None

    def _structured(self, flat: Sequence) -> Any:
        return jax.tree.unflatten(self._prim.in_tree, flat)

    def run(self, args: Sequence) -> list:
        """What it computes, in terms of ordinary primitives."""
        return jax.tree.leaves(self._prim.expand(*self._structured(args)))

    def jvp(self, primals: Sequence, tangents: Sequence) -> tuple[list, list]:
        """Its own derivative."""
        dots = [ad.Zero(t.aval) if is_zero(t) else t for t in tangents]
        out, out_dot = self._prim.jvp(self._structured(primals), self._structured(dots))
        return jax.tree.leaves(out), [_public(x) for x in jax.tree.leaves(out_dot, is_leaf=is_zero)]

    def forward(self, primals: Sequence, perturbed: Sequence[bool]) -> tuple[list, Any]:
        """Its rule for the way there: outputs, and residuals for the way back."""
        out, residuals, *_ = self._prim.vjp_fwd(
            self._structured(perturbed), *self._structured(primals)
        )
        return jax.tree.leaves(out), residuals

    def backward(self, residuals: Any, cotangents: Sequence) -> tuple[list, Any]:
        """Its rule for the way back: cotangents of all inputs, and logs."""
        flat = [ad.Zero(t.aval) if is_zero(t) else t for t in cotangents]
        prim, logs = self._prim, None
        bars = jax.tree.unflatten(prim.out_tree, flat)
        if hasattr(prim, "generic_batching"):  # from 0.12
            out, logs = prim.bwd(residuals, bars)
        else:
            out = prim.vjp_bwd_retval(residuals, bars)
        found = jax.tree.leaves(out, is_leaf=is_zero)
        missing = len(prim.in_avals_flat) - len(found)  # what it closes over comes first
        return [None] * missing + [None if is_zero(x) else x for x in found], logs


class StagedShardMap(NamedTuple):
    """What a `shard_map` about to be bound computes; `restore` shapes its outputs for JAX."""

    jaxpr: Any
    args: list
    in_specs: Sequence
    out_specs: Sequence
    manual_axes: set
    restore: Callable[[list], Any]


def stage_shard_map(args: Sequence, params: dict) -> StagedShardMap:
    """Trace the body of a `shard_map`, whose output specs are known only then."""
    out_tree: Any = None

    def bind(*xs):
        nonlocal out_tree
        # Not intercepted, or it would be staged again.
        original = type(shard_map_p).bind_with_trace
        avals = [jax.typeof(x) for x in xs]
        out_tree = original(shard_map_p, current_trace(), xs, avals, dict(params))
        return list(out_tree)

    staged = jax.make_jaxpr(bind)(*args)
    (eqn,) = (e for e in equations(staged) if e.primitive is shard_map_p)
    outer = getattr(staged, "jaxpr", staged)
    values = dict(zip([*outer.constvars, *outer.invars], [*staged.consts, *args], strict=True))
    operands = [v.val if isinstance(v, jex.Literal) else values[v] for v in eqn.invars]
    body, specs = eqn.params["jaxpr"], (eqn.params["in_specs"], eqn.params["out_specs"])
    manual_axes = params.get(
        "newly_manual_axes", params.get("manual_axes", ())
    )  # renamed in 0.10.1
    return StagedShardMap(body, operands, *specs, set(manual_axes), out_tree.update)


def varying_axes(aval: Any) -> frozenset:
    """The mesh axes of a `shard_map` along which a value may differ; none if that is unchecked."""
    return frozenset(getattr(getattr(aval, "mat", None), "varying", ()))


def convert(value: Any, dtype: Any, weak_type: bool) -> Any:
    """Cast to a dtype and to a weak or strong type."""
    return _convert_element_type(value, dtype, weak_type=weak_type)


def is_tracer(value: Any) -> bool:
    """Whether a value stands for one in a program that is being traced."""
    return isinstance(value, jax.core.Tracer)


def key_impl(dtype: Any) -> str:
    """The name of the generator of a dtype of random keys; `jax.random.key_impl` takes arrays."""
    return dtype._impl.name
