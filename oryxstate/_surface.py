"""Every unstable name of JAX that oryxstate stands on, and whether it is there as it was.

The tests read this file without importing the package, and docs/explanation/jax-surface.md is made
from it; so it imports nothing but JAX.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax


class Name(NamedTuple):
    """A name that JAX may move.

    Attributes:
        name: with its module, and its class if it has one.
        purpose: what we need it for.
        takes: how many arguments we call it with, `self` included, None if we do not.
        keywords: the arguments that we give by keyword.
        since: of a name of `jax._src`, the release of JAX that brought it.
        instead: of such a name, what could replace it.
    """

    name: str
    purpose: str
    takes: int | None = None
    keywords: tuple[str, ...] = ()
    since: str = ""
    instead: str = ""


PRIVATE = [
    Name(
        "jax._src.config.eager_constant_folding",
        "state is not a constant inside `jax.ensure_compile_time_eval`",
        takes=1,
        since="0.4.36",
        instead="a public context manager, the opposite of `jax.ensure_compile_time_eval`",
    ),
    Name(
        "jax._src.distributed.global_state",
        "the processes of a run agree on a checkpoint, in threads where collectives may not run",
        since="before 0.4.14",
        instead="a public client of the coordinator of `jax.distributed`",
    ),
    Name(
        "jax._src.core.get_axis_env",
        "the mesh axes of the batch inside a `vmap`, along which layers gather their parameters",
        takes=0,
        since="0.4.36",
        instead="types that show the mesh axes of a `vmap`",
    ),
    Name(
        "jax._src.effects.custom_derivatives_allowed_effects",
        "our effects may stand in functions with a derivative of their own",
        since="before 0.4.14",
        instead="a public registration of effects",
    ),
    Name(
        "jax._src.effects.partial_eval_kept_effects",
        "partial evaluation keeps writes whose outputs nobody uses",
        since="0.7.0",
        instead="a public registration of effects",
    ),
    Name(
        "jax._src.effects.remat_allowed_effects",
        "our effects may stand in `jax.checkpoint`",
        since="before 0.4.14",
        instead="a public registration of effects",
    ),
    Name(
        "jax._src.pjit._pjit_call_impl_python",
        "an eager call of a jitted function, which no primitive is bound for",
        keywords=("jaxpr",),
        since="before 0.4.14",
        instead="a public hook that sees primitives when they are bound",
    ),
    Name(
        "jax._src.traceback_util.register_exclusion",
        "filtered tracebacks leave our frames out",
        takes=1,
        since="before 0.4.14",
        instead="a counterpart of `jax.extend.source_info_util.register_exclusion` for tracebacks",
    ),
]

_JEX, _AD, _MLIR = "jax.extend.core", "jax.interpreters.ad", "jax.interpreters.mlir"
_RULES = "the rules of our own primitives"
_STAGED = "computations inside primitives"
_LOOKED_UP = "primitives that are not exported, by name"
_OWN = "functions with a derivative of their own"
PUBLIC = [
    Name("jax.core.Trace", "a trace that looks at what passes"),
    Name("jax.core.Trace.process_primitive", "a trace that looks at what passes", 4),
    Name("jax.core.Tracer", "values that are traced"),
    Name("jax.core.eval_context", "the trace that computes at once", 0),
    Name("jax.experimental.hijax.control_flow_allowed_effects", "effects in loops and branches"),
    Name(f"{_JEX}.ClosedJaxpr", _STAGED, 2),
    Name(f"{_JEX}.Effect", "the effect that names a variable"),
    Name(f"{_JEX}.Jaxpr", _STAGED),
    Name(f"{_JEX}.Literal", _STAGED),
    Name(f"{_JEX}.Primitive", "the primitives that read and write a variable", 1),
    Name(f"{_JEX}.Primitive.bind_with_trace", "where rules are asked", 5),
    Name(f"{_JEX}.Primitive.def_abstract_eval", _RULES, 2),
    Name(f"{_JEX}.Primitive.def_effectful_abstract_eval", _RULES, 2),
    Name(f"{_JEX}.Primitive.def_impl", _RULES, 2),
    Name(f"{_JEX}.find_top_trace", "the current trace", 1),
    Name(f"{_JEX}.jaxpr_as_fun", _STAGED, 1),
    Name(f"{_JEX}.jaxprs_in_params", _STAGED, 1),
    Name(f"{_JEX}.primitives.cond_p", "`lax.cond` and `lax.switch`"),
    Name(f"{_JEX}.primitives.convert_element_type_p", "a cast to a weak type"),
    Name(f"{_JEX}.primitives.custom_jvp_call_p", "`jax.custom_jvp`"),
    Name(f"{_JEX}.primitives.custom_vjp_call_p", "`jax.custom_vjp`"),
    Name(f"{_JEX}.primitives.jit_p", "`jax.jit`"),
    Name(f"{_JEX}.primitives.linear_solve_p", "`lax.custom_linear_solve`"),
    Name(f"{_JEX}.primitives.remat_p", "`jax.checkpoint`"),
    Name(f"{_JEX}.primitives.scan_p", "`lax.scan` and what is built on it"),
    Name(f"{_JEX}.primitives.while_p", "`lax.while_loop`"),
    Name(f"{_JEX}.set_current_trace", "binding at another trace", 1),
    Name("jax.extend.linear_util.StoreException", _OWN),
    Name("jax.extend.linear_util.WrappedFun", _OWN),
    Name("jax.extend.linear_util.WrappedFun.call_wrapped", _OWN, 1),
    Name("jax.extend.source_info_util.register_exclusion", "equations name lines of the user", 1),
    Name(f"{_AD}.JVPTrace", "the trace of `jax.jvp`"),
    Name(f"{_AD}.JVPTrace.process_custom_jvp_call", _OWN, 5, ("symbolic_zeros",)),
    Name(f"{_AD}.JVPTrace.process_custom_vjp_call", _OWN, 6, ("out_trees", "symbolic_zeros")),
    Name(f"{_AD}.JVPTracer", "values of `jax.jvp`", 3),
    Name(f"{_AD}.Zero", "symbolic zeros of rules", 1),
    Name(f"{_AD}.primitive_jvps", f"{_RULES}; {_LOOKED_UP}"),
    Name("jax.interpreters.batching.fancy_primitive_batchers", _RULES),
    Name(f"{_MLIR}.lower_fun", _RULES, 1, ("multiple_results",)),
    Name(f"{_MLIR}.lowerable_effects", "our effects reach our lowering rule, which refuses them"),
    Name(f"{_MLIR}.register_lowering", _RULES, 2),
    Name("jax.interpreters.partial_eval.dce_rules", _LOOKED_UP),
]

# Primitives that are found by name, in the tables of JAX's rules.
PRIMITIVES = {
    "call_hi_primitive": "`lax.custom_root`, the new checkpoint, and the new custom derivatives",
    "custom_vmap_call": "`jax.custom_batching.custom_vmap`",
    "debug_callback": "`jax.debug.callback` and `jax.debug.print`",
    "io_callback": "`jax.experimental.io_callback`",
    "pure_callback": "`jax.pure_callback`",
    "remat_opt": "`jax.custom_vjp` with `optimize_remat`",
    "shard_map": "`jax.shard_map`",
}

TRANSFORMATIONS: dict[str, tuple[Callable[[Callable, Any], Any], tuple[str, ...]]] = {
    "jax.jvp": (lambda f, x: jax.jvp(f, (x,), (x,)), ("primal", "tangent")),
    "jax.linearize": (lambda f, x: jax.linearize(f, x)[0], ("primal", "tangent")),
    "jax.vmap": (lambda f, x: jax.vmap(f)(x), ("val", "batch_dim")),
}


def resolve(name: str) -> Any:
    """Find the object of a dotted name.

    Raises:
        AttributeError: if it is not there.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[end:], module)
    raise AttributeError(name)


def broken_name(row: Name) -> str | None:
    """Say what is wrong with a name, None if nothing is, or if the row of its class says so."""
    try:
        found = resolve(row.name)
    except AttributeError:
        owner = row.name.rpartition(".")[0]
        listed = any(owner == other.name for other in PUBLIC)
        return None if listed and _is_missing(owner) else f"`{row.name}` is not there"
    return _misfit(row, found) if row.takes is not None or row.keywords else None


def _misfit(row: Name, found: Any) -> str | None:
    """Say so if it cannot be called as we do."""
    try:
        signature = inspect.signature(found)
    except ValueError:  # of a builtin that does not say
        return None
    given = dict.fromkeys(row.keywords)
    try:
        if row.takes is None:  # with all that JAX itself gives, and these among it
            signature.bind_partial(**given)
        else:
            signature.bind(*range(row.takes), **given)
    except TypeError as error:
        return f"`{row.name}` is called in another way, `{signature}`: {error}"
    return None


def _is_missing(name: str) -> bool:
    try:
        resolve(name)
    except AttributeError:
        return True
    return False


def broken_primitive(name: str) -> str | None:
    """Say so if JAX has no primitive of this name."""
    tables = ("jax.interpreters.ad.primitive_jvps", "jax.interpreters.partial_eval.dce_rules")
    if any(map(_is_missing, tables)):  # their own rows say so
        return None
    if any(primitive.name == name for table in tables for primitive in resolve(table)):
        return None
    return f"the primitive `{name}` is not there"


def broken_transformation(name: str) -> str | None:
    """Say what the tracers of a transformation lack."""
    transform, parts = TRANSFORMATIONS[name]
    missing: list[str] = []

    def look(x):
        trace = getattr(x, "_trace", None)
        wanted = {"tracer": (x, ("_trace", *parts)), "trace": (trace, ("tag", "parent_trace"))}
        for of, (owner, names) in wanted.items():
            missing.extend(f"the {of} of `{name}` has no `{n}`" for n in names if _lacks(owner, n))
        return x

    jax.eval_shape(lambda x: transform(look, x), jax.ShapeDtypeStruct((1,), jax.numpy.float32))
    return missing[0] if missing else None


def _lacks(owner: Any, name: str) -> bool:
    return not hasattr(owner, name)


def broken() -> Iterator[str]:
    """Say everything that is not as it was."""
    found = [
        *map(broken_name, [*PRIVATE, *PUBLIC]),
        *map(broken_primitive, PRIMITIVES),
        *map(broken_transformation, TRANSFORMATIONS),
    ]
    return (what for what in found if what is not None)
