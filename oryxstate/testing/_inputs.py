"""The strategy of inputs with which a module can be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from hypothesis import strategies as st

from oryxstate._annotations import _hints
from oryxstate._module._base import Module
from oryxstate._module._derive import nothing_written
from oryxstate._module._pytree import modules
from oryxstate._module._takes import RNG, taken_inside
from oryxstate._tree import ArraySpec
from oryxstate.testing._arrays import arrays, keys
from oryxstate.testing._bound import bind_all
from oryxstate.testing._dimensions import Scope, Sizes, scopes
from oryxstate.testing._parameters import Parameters, draw_arguments, drawn, parameters_of
from oryxstate.testing._values import Drawing, Place, values_at
from oryxstate.testing._walk import has_batched_rule, written


def inputs(
    module: Module,
    /,
    *specs: ArraySpec,
    sizes: Sizes | Mapping[str, Any] | None = None,
    examples: int | None = None,
    **arguments: Any,
) -> st.SearchStrategy[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Strategy of the arguments of a module's call, `(args, kwargs)`.

    They are drawn by the annotations of `call`, or of `call_and_update` if that is what the author
    wrote. Names of axes mean there what they mean for the fields: if `kernel: Float[Array, "in
    out"]` has the shape (3, 4) then `x: Float[Array, "b in"]` has three columns. (To jaxtyping the
    names of fields and calls are not related; but an input must fit the model.) Names of modules
    inside count too, unless two of these disagree. Keywords that the module or a layer in it takes
    are drawn as well: `training`, `rng`, and others by their annotations. A module with a layer
    that sees the whole batch (`call_batched`) trains only if there are `examples`.

    Args:
        module: the module.
        *specs: of the positional arguments, if annotations do not tell. Integers are 0 or 1, which
            are indices of anything.
        sizes: lengths of axes by name, rather than those of the fields.
        examples: if given, each array in `args` has a first axis of this length, for `jax.vmap`;
            keywords are those of all examples.
        **arguments: strategies, or values, for arguments by the names of parameters.

    Raises:
        TypeError: for an argument that the call does not take; when an example is drawn, for a
            parameter without a default whose annotation does not tell what it is.

    Examples:
        >>> from hypothesis import find
        >>> import jax, jax.numpy as jnp
        >>> from jaxtyping import Array, Float
        >>> import oryxstate as ox
        >>> from oryxstate.testing import inputs
        >>> class Linear(ox.Module):
        ...     kernel: Float[Array, "in out"]
        ...     def call(self, x: Float[Array, "in"]) -> Float[Array, "out"]:
        ...         return x @ self.kernel
        >>> find(inputs(Linear(jnp.ones((3, 4)))), lambda call: True)
        ((Array([0., 0., 0.], dtype=float32),), {})
    """
    if not isinstance(module, Module):
        raise TypeError(f"inputs: give a module, got {module!r}. A class has `modules(kind)`.")
    if type(module).call is Module.call:
        raise TypeError(f"inputs: {nothing_written(module, 'call')}")
    owner = f"`{type(module).__name__}.call`"
    kind = type(module)
    call = parameters_of(written(kind), owner, "`inputs(module, {}=strategy)`", kind)
    call = call.without(next(iter(call.signature)))  # self
    by_name = [n for n, p in call.signature.items() if p.kind is p.KEYWORD_ONLY]
    positional = call.without(*by_name, *(call.signature if specs else ()))
    by_name = call.without(*(n for n in call.signature if n not in by_name))
    keywords = _keywords_of(module, call, batched=examples is not None)
    known = {**positional.signature, **by_name.signature, **keywords}
    for name in arguments:
        if name not in known:
            takes = ", ".join(known) or "nothing else"
            raise TypeError(f"inputs: {owner} has no parameter `{name}` to draw. It takes {takes}.")
    given = {**keywords, **arguments}
    leading = () if examples is None else (examples,)
    hints = [call.hints.get(name) for name in call.signature if name not in by_name.signature]
    parts = _Parts(module, specs, hints, leading, positional, by_name, given)
    return _inputs(parts, scopes(sizes), {})


class _Parts(NamedTuple):
    """What arguments consist of."""

    module: Module
    specs: tuple[ArraySpec, ...]
    hints: list[Any]
    leading: tuple[int, ...]
    positional: Parameters
    by_name: Parameters
    given: dict[str, Any]

    def given_to(self, names: Any) -> dict[str, Any]:
        """Return those strategies that are for some names."""
        return {name: value for name, value in self.given.items() if name in names}


@st.composite
def _inputs(draw: Any, parts: _Parts, scopes: st.SearchStrategy[Scope], failed: dict) -> Any:
    drawing = Drawing(draw, draw(scopes), failed)
    _bind_fields(parts.module, drawing.scope)
    drawing.scope.arguments["self"] = parts.module
    bind_all(zip(parts.hints, parts.specs, strict=False), drawing.scope)
    drawing.scope.leading = parts.leading
    names = parts.positional.signature
    args, _ = draw_arguments(drawing, parts.positional, parts.given_to(names))
    args = (*(draw(_of_spec(spec, parts.leading)) for spec in parts.specs), *args)
    drawing.scope.leading = ()
    own = parts.by_name.signature
    _, kwargs = draw_arguments(drawing, parts.by_name, parts.given_to(own))
    rest = {n: drawn(draw, v) for n, v in parts.given.items() if n not in own and n not in names}
    return args, {**kwargs, **rest}


def _of_spec(spec: ArraySpec, leading: tuple[int, ...]) -> st.SearchStrategy[Any]:
    whole = ArraySpec((*leading, *spec.shape), spec.dtype)
    integers = jnp.issubdtype(spec.dtype, jnp.integer)
    return arrays(whole, minimum=0, maximum=1) if integers else arrays(whole)


def _bind_fields(module: Module, scope: Scope) -> None:
    """Give names the lengths that they have in a module, or else in all modules inside it."""
    own, *inner = (each for _, each in modules(module))
    _bind_own(own, scope)
    found: dict[tuple[type, str], set[Any]] = {}
    for each in inner:
        names = Scope({})
        _bind_own(each, names)
        for known in (names.axes, names.variadic):
            for name, length in known.items():
                found.setdefault((type(length), name), set()).add(length)
    for (_, name), lengths in found.items():
        if len(lengths) == 1:
            scope.bind(name, lengths.pop())


def _bind_own(module: Module, scope: Scope) -> None:
    hints, held = _hints.of_fields(type(module)), module.__layout__.data
    bind_all([(hints[name], getattr(module, name)) for name in held if name in hints], scope)


def _keywords_of(module: Module, call: Parameters, *, batched: bool) -> dict[str, Any]:
    """Strategies for the keywords that the call of a module needs, or that layers in it do."""
    modes = st.just(False) if has_batched_rule(module) and not batched else st.booleans()
    found: dict[str, Any] = {}
    for _, each in modules(module):
        parameters = parameters_of(written(type(each)), f"`{type(each).__name__}.call`", "{}")
        for name, needed in each.__keywords__.items():
            if needed and name not in call.signature:
                hint = parameters.hints.get(name, Any)
                place = Place(parameters.place(name).name, f"`inputs(module, {name}=strategy)`")
                found.setdefault(name, values_at(hint, place))
    taken = {*taken_inside(module), *call.signature}
    known = {"training": modes, RNG: keys()}
    return found | {name: strategy for name, strategy in known.items() if name in taken}
