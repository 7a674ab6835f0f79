"""Jaxprs with state effects, made pure functions of their state."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from oryxstate import _jax, _jaxprs
from oryxstate._effects import _frames, _primitives, _sown
from oryxstate._effects._names import FUNCTION, Name, touches_state
from oryxstate._effects._trace import refuse_state_inside
from oryxstate._errors import EffectError

Values = dict[Name, _frames.Leaves]


class Slices(NamedTuple):
    """An argument of which the body of a loop sees one slice per iteration."""

    stacked: Any


class Part(NamedTuple):
    """Stands for an argument of which a body sees something else than what was handed over.

    Attributes:
        how: who does so, such as "`shard_map` hands to each device in part (`in_specs`)".
    """

    how: str


class _WeakCache:
    """A cache per jaxpr that dies with it; the cached functions must hold the jaxpr weakly."""

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def get(self, jaxpr: Any, key: Any, make: Callable[[], Any]) -> Any:
        """Return the entry of this jaxpr under `key`, made now if it is not there."""
        entries = self._entries.setdefault(jaxpr, {})
        if key not in entries:
            entries[key] = make()
        return entries[key]


_cache = _WeakCache()
cached = _cache.get


# How a jaxpr uses variables -----------------------------------------------------------------------


class Use(NamedTuple):
    """How a jaxpr uses a variable.

    Attributes:
        avals: the type of its leaves inside.
        refs: the inputs of the jaxpr that carry its leaves (see `_primitives.read`); empty if
            there are none.
        written: whether it is written at all.
        reduce: how mapped writes are combined.
        treedef: the structure with which a function declares it.
        identities: the root calls that it must belong to.
    """

    avals: tuple
    refs: tuple[int, ...]
    written: bool
    reduce: Callable[..., Any] | None
    treedef: Any
    identities: frozenset[int]


def uses(jaxpr: Any) -> dict[Name, Use]:
    """Return the variables that a jaxpr touches; its loops and branches are pure already."""
    return cached(jaxpr, "uses", functools.partial(_find_uses, jaxpr))


def _find_uses(jaxpr: Any) -> dict[Name, Use]:
    found: dict[Name, Use] = {}
    position = {var: i for i, var in enumerate(_jaxprs.invars(jaxpr))}
    for eqn in _jaxprs.equations(jaxpr):
        if eqn.primitive is _primitives.variable_p:
            use = _use(eqn, eqn.invars, position, False)
        elif eqn.primitive is _primitives.assign_p:
            use = _use(eqn, eqn.params["shape"].split(eqn.invars)[1], position, True)
        elif eqn.primitive is _sown.sow_p:
            continue
        elif _jaxprs.only_places(eqn):  # JAX may say again on which devices an input is
            if eqn.invars[0] in position:
                position[eqn.outvars[0]] = position[eqn.invars[0]]
            continue
        else:
            refuse_state_inside(eqn.primitive, eqn.params)
            continue
        name = eqn.params["var"]
        if name in found and _shapes(found[name]) != _shapes(use):
            raise _whole_and_slices(name)
        found[name] = _merge(found.get(name, use), use)
    return found


def _shapes(use: Use) -> list[tuple]:
    return [aval.shape for aval in use.avals]


def _whole_and_slices(name: Name) -> EffectError:
    return EffectError(
        f"state '{name}' is used both as a whole and in slices in one body of a loop, where a "
        "stack of modules is handed over as `xs`. Use the slice that the body is given, or read "
        "the whole before the loop, `ox.snapshot(module)`."
    )


def _use(eqn: Any, refs: Sequence, position: dict, written: bool) -> Use:
    indices = [position[var] for var in refs if var.__hash__ and var in position]
    known = tuple(indices) if len(indices) == len(refs) else ()
    avals = tuple(var.aval for var in eqn.outvars)
    params, identity = eqn.params, eqn.params["identity"]
    identities = frozenset(() if identity is None else (identity,))
    return Use(avals, known, written, params.get("reduce"), params.get("declare"), identities)


def _merge(one: Use, other: Use) -> Use:
    return Use(
        one.avals,
        one.refs or other.refs,
        one.written or other.written,
        one.reduce or other.reduce,
        one.treedef if one.treedef is not None else other.treedef,
        one.identities | other.identities,
    )


def reaching_outputs(jaxpr: Any) -> dict[Name, bool]:
    """Return the variables that outputs of a jaxpr depend on, and whether it writes them."""
    origins: dict[Any, frozenset[Name]] = {}
    for eqn in _jaxprs.equations(jaxpr):
        names = _origins_of(eqn.invars, origins)
        if eqn.primitive is _primitives.variable_p:
            names |= {eqn.params["var"]}
        if names:
            origins.update(dict.fromkeys(eqn.outvars, names))
    written = {name for name, use in uses(jaxpr).items() if use.written}
    return {name: name in written for name in _origins_of(_jaxprs.outvars(jaxpr), origins)}


def evolving(jaxpr: Any) -> set[Name]:
    """Return the variables that outputs depend on, and that a loop in a jaxpr takes and writes."""
    from_loops: dict[Any, frozenset[Name]] = {}
    origins: dict[Any, frozenset[Name]] = {}
    found: set[Name] = set()
    for eqn in _jaxprs.equations(jaxpr):
        name = eqn.params.get("var")
        names, looped = _origins_of(eqn.invars, origins), _origins_of(eqn.invars, from_loops)
        if eqn.primitive is _primitives.variable_p:
            names |= {name}
        elif eqn.primitive is _primitives.assign_p:
            found |= {name} & looped
        elif _jaxprs.holds_loop(eqn):
            looped |= _origins_of(_jaxprs.carried(eqn), origins)
        origins.update(dict.fromkeys(eqn.outvars, names))
        from_loops.update(dict.fromkeys(eqn.outvars, looped))
    return found & set(reaching_outputs(jaxpr))


def _origins_of(variables: Iterable, origins: dict) -> frozenset[Name]:
    known = [origins[v] for v in variables if v.__hash__ and v in origins]
    return frozenset().union(*known)


def declares(jaxpr: Any) -> bool:
    """Tell whether a function that is being initialized declares variables in this jaxpr."""
    return any(map(_is_undeclared, uses(jaxpr)))


def _is_undeclared(name: Name) -> bool:
    function = _frames.innermost_function()
    return function is not None and function.awaits(name)


# Variables threaded through a primitive -----------------------------------------------------------


def thread(
    trace: Any,
    computations: Sequence[tuple[Any, Sequence]],
    rebuild: Callable[[ThreadedVariables], tuple[Any, Values]],
    undeclared: str = "",
) -> Any:
    """Rebuild a higher-order primitive as a pure function of the variables that it touches.

    Args:
        trace: where it is bound.
        computations: `(jaxpr, arguments)` of each computation inside.
        rebuild: takes the variables, and returns the outputs and what the variables are then.
        undeclared: the name of the primitive, if none may be declared inside it.

    Returns:
        The outputs, or None if no variable is touched.
    """
    for jaxpr, _ in computations:
        if touches_state(jaxpr):
            break
    else:
        return None
    with _jax.set_current_trace(trace):
        variables = ThreadedVariables(computations)
        if undeclared:
            variables.refuse_declarations(undeclared)
        out, new = rebuild(variables)
        variables.assign(new)
    return out


class ThreadedVariables:
    """The variables that a higher-order primitive touches, read before it and assigned after it.

    Attributes:
        read: those that are only read, with their values.
        written: those that are written, with their values so far.
        stacks_read: those of a stack of modules that are only read, with their stacked values.
        stacks_written: those of a stack that are written.
        declared: those of a function being initialized that are declared inside.
        sown: the forms of what is sown, in order by name; a rule changes them as it does the
            values.
    """

    def __init__(self, computations: Iterable[tuple[Any, Sequence]]):
        """Read the variables of `(jaxpr, arguments)` pairs under the current trace."""
        self._uses: dict[Name, Use] = {}
        self._refs: dict[Name, _frames.Leaves] = {}
        self.read: Values = {}
        self.written: Values = {}
        self.stacks_read: Values = {}
        self.stacks_written: Values = {}
        self.sown: dict[Name, list[_sown.Form]] = {}
        stacks: set[Name] = set()
        for jaxpr, args in computations:
            for name, kinds in _sown.forms(jaxpr).items():
                self.sown[name] = [form for _, form in kinds]
            for name, use in uses(jaxpr).items():
                self._uses[name] = _merge(self._uses.get(name, use), use)
                refs, is_stack = _carried(name, use, args)
                self._refs[name] = self._refs.get(name) or refs
                if is_stack:
                    stacks.add(name)
        self.declared = sorted(filter(_is_undeclared, self._uses))
        for name in sorted(set(self._uses) - set(self.declared)):
            value = self._value(name)
            if name in stacks:
                (self.stacks_written if self._uses[name].written else self.stacks_read)[name] = (
                    value
                )
            else:
                (self.written if self._uses[name].written else self.read)[name] = value

    def _value(self, name: Name) -> _frames.Leaves:
        use, refs = self._uses[name], self._refs[name]
        identities = use.identities or (None,)
        return [_primitives.read(name, use.avals, refs, one) for one in identities][-1]

    def assign(self, new: Values) -> None:
        """Write what came out: the written variables, and the first and last values of declared."""
        for name in self.declared:
            first, last = new[name]
            _primitives.declare(name, first, self._uses[name].treedef)
            if self._uses[name].written:
                _primitives.write(name, last)
        for name in (*self.written, *self.stacks_written):
            _primitives.write(name, new[name], self._refs[name], self._uses[name].reduce)
        for name, kinds in self.sown.items():
            for leaves, form in zip(new[name], kinds, strict=True):
                _sown.sow(name, leaves, form)

    def refuse_declarations(self, primitive: str) -> None:
        """Raise if variables are declared inside, where they cannot be."""
        if self.declared:
            raise ValueError(
                f"variable {self.declared[0].field!r} is declared inside `{primitive}`, where it "
                "would be declared once per iteration or branch. Declare it before it."
            )


def _carried(name: Name, use: Use, args: Sequence) -> tuple[_frames.Leaves, bool]:
    """Return the leaves that a module carries for a variable, and whether they are a stack."""
    refs = tuple(args[i] for i in use.refs)
    for ref in refs:
        if isinstance(ref, Part):
            raise partial_error(name, ref)
    stacks = [isinstance(ref, Slices) for ref in refs]
    if any(stacks) and (name.level == FUNCTION or not all(stacks)):
        raise partial_error(name, Part("`scan` hands to its body in slices (`xs`)"))
    return tuple(r.stacked if isinstance(r, Slices) else r for r in refs), any(stacks)


def partial_error(name: Name, part: Part) -> EffectError:
    """Return the error for state of a module of which a body sees only a part."""
    return EffectError(
        f"state '{name}' belongs to a module that {part.how}, so inside it no longer stands for "
        "its place in the root call. Call it explicitly, "
        "`y, module = module.call_and_update(x)`, return `module` with the outputs of the body, "
        f"and assign the stacked result: `assign({name.field}=...)`."
    )


def pure(jaxpr: Any, declared: Sequence[Name] = ()) -> Callable[..., tuple[list, Values]]:
    """Return `f(read, written, *args) -> (outputs, new values of written and declared, and sown)`.

    The same function each time for one jaxpr, so that JAX's caches work as they would without us.
    It holds the jaxpr weakly, whose holder is whoever binds it.
    """
    make = functools.partial(_make_pure, weakref.ref(jaxpr), declared)
    return cached(jaxpr, ("pure", *declared), make)


def pure_uncached(jaxpr: Any) -> Callable[..., tuple[list, Values]]:
    """Return the same for a jaxpr that nobody else holds: the function does."""
    return _make_pure(lambda: jaxpr, ())


def _make_pure(get_jaxpr: Callable[[], Any], declared: Sequence[Name]) -> Callable:
    def run(read: Values, written: Values, *args: Any) -> tuple[list, Values]:
        with _frames.replay({**read, **written}, declared=declared) as frame:
            out = _jaxprs.evaluate(get_jaxpr(), args)
            new: dict[Name, Any] = {name: frame.variables[name].leaves for name in written}
            for name in declared:
                variable = frame.variables[name]
                new[name] = variable.first, variable.leaves
            new.update({name: _sown.values(frame, name) for name in _sown.forms(get_jaxpr())})
            return out, new

    return run
