"""How does a jaxpr with state effects become a pure function of the state?"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from oryxstate import _jax
from oryxstate._effects import _frames, _primitives
from oryxstate._effects._names import FUNCTION, Name
from oryxstate._effects._trace import refuse_state_inside


class Part(NamedTuple):
    """Stands for an argument of which a body sees only a part at a time.

    Attributes:
        how: who hands it over and in which way, as in "`scan` hands to its body in slices (`xs`)".
    """

    how: str


Values = dict[Name, _frames.Leaves]


class _WeakCache:
    """A cache per jaxpr that dies with it; the cached functions must hold the jaxpr weakly."""

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def get(self, jaxpr: Any, key: Any, make: Callable[[], Any]) -> Any:
        """The entry of this jaxpr under `key`, made now if it is not there."""
        entries = self._entries.setdefault(jaxpr, {})
        if key not in entries:
            entries[key] = make()
        return entries[key]


_cache = _WeakCache()


class Use(NamedTuple):
    """How a jaxpr uses a variable.

    Attributes:
        avals: the type of its leaves inside.
        refs: the inputs of the jaxpr that carry its leaves (see `_primitives.read`); empty if
            there are none.
        written: whether it is written at all.
        reduce: how mapped writes are combined.
        structure: the tree definition with which a function declares it.
    """

    avals: tuple
    refs: tuple[int, ...]
    written: bool
    reduce: Callable[..., Any] | None
    structure: Any


def uses(jaxpr: Any) -> dict[Name, Use]:
    """The variables that a jaxpr touches; its loops and branches are pure already."""
    return _cache.get(jaxpr, "uses", functools.partial(_find_uses, jaxpr))


def _find_uses(jaxpr: Any) -> dict[Name, Use]:
    found: dict[Name, Use] = {}
    position = {var: i for i, var in enumerate(_jax.invars(jaxpr))}
    for eqn in _jax.equations(jaxpr):
        if eqn.primitive is _primitives.variable_p:
            use = _use(eqn, eqn.invars, position, False)
        elif eqn.primitive is _primitives.assign_p:
            refs = eqn.invars[len(eqn.outvars) :]
            use = _use(eqn, refs, position, True)
        else:
            refuse_state_inside(eqn.primitive, eqn.params)
            continue
        name = eqn.params["var"]
        found[name] = _merge(found.get(name, use), use)
    return found


def _use(eqn: Any, refs: Sequence, position: dict, written: bool) -> Use:
    indices = [position[var] for var in refs if var.__hash__ and var in position]
    known = tuple(indices) if len(indices) == len(refs) else ()
    avals = tuple(var.aval for var in eqn.outvars)
    return Use(avals, known, written, eqn.params.get("reduce"), eqn.params.get("declare"))


def _merge(one: Use, other: Use) -> Use:
    return Use(
        one.avals,
        one.refs or other.refs,
        one.written or other.written,
        one.reduce or other.reduce,
        one.structure if one.structure is not None else other.structure,
    )


def refuse_derivative_of_root(jaxpr: Any) -> None:
    """Raise if `custom_root` is differentiated and its solution depends on state that it writes.

    Its derivative is that of the residual, which would read the state that the solve left instead
    of the state that it met: a wrong gradient.
    """
    written = {name for name, use in uses(jaxpr).items() if use.written}
    dependent: dict[Any, Name] = {}  # variables of the jaxpr -> state that they are computed from
    for eqn in _jax.equations(jaxpr):
        names = [dependent[v] for v in eqn.invars if v.__hash__ and v in dependent]
        if eqn.primitive is _primitives.variable_p and eqn.params["var"] in written:
            names = [eqn.params["var"]]
        if names and eqn.primitive is not _primitives.assign_p:
            dependent.update(dict.fromkeys(eqn.outvars, names[0]))
        elif eqn.primitive is _primitives.assign_p:  # what was written may be used at once
            dependent.update(dict.fromkeys(eqn.outvars, eqn.params["var"]))
    for out in _jax.outvars(jaxpr):
        if out.__hash__ and out in dependent:
            raise _primitives.EffectError(
                f"state '{dependent[out]}' is read and written inside `lax.custom_root`, which is "
                "differentiated: the derivative would be taken at the state that the solve left. "
                "Read the state before `custom_root` and close over the value, or write it after, "
                "from the solution."
            )


def declares(jaxpr: Any) -> bool:
    """Whether a function that is being initialized declares variables in this jaxpr."""
    return any(map(_is_undeclared, uses(jaxpr)))


class State:
    """The variables that a higher-order primitive touches, read before it and assigned after it.

    Attributes:
        fixed: those that are only read, with their values.
        changing: those that are written, with their values so far.
        fresh: those of a function being initialized that are declared inside.
    """

    def __init__(self, *computations: tuple[Any, Sequence]):
        """Read the state of `(jaxpr, arguments)` pairs under the current trace."""
        self._uses: dict[Name, Use] = {}
        self._refs: dict[Name, _frames.Leaves] = {}
        for jaxpr, args in computations:
            for name, use in uses(jaxpr).items():
                self._uses[name] = _merge(self._uses.get(name, use), use)
                self._refs.setdefault(name, tuple(args[i] for i in use.refs))
        for name, refs in self._refs.items():
            for ref in refs:
                if isinstance(ref, Part):
                    raise partial_error(name, ref)
        self.fresh = sorted(name for name in self._uses if _is_undeclared(name))
        self.fixed, self.changing = {}, {}
        for name in sorted(set(self._uses) - set(self.fresh)):
            use = self._uses[name]
            part = self.changing if use.written else self.fixed
            part[name] = _primitives.read(name, use.avals, self._refs[name])

    def assign(self, new: Values) -> None:
        """Write what came out: the variables of `changing`, and the declarations of `fresh`."""
        for name in self.fresh:
            first, last = new[name]
            _primitives.declare(name, first, self._uses[name].structure)
            if self._uses[name].written:
                _primitives.write(name, last)
        for name in self.changing:
            _primitives.write(name, new[name], self._refs[name], self._uses[name].reduce)

    def refuse_fresh(self, primitive: str) -> None:
        """Raise if variables are declared inside, where they cannot be."""
        if self.fresh:
            raise ValueError(
                f"variable {self.fresh[0].field!r} is declared inside `{primitive}`, where it "
                "would be declared once per iteration or branch. Declare it before it."
            )


def _is_undeclared(name: Name) -> bool:
    if name.level != FUNCTION:
        return False
    function = _frames.innermost_function()
    return function is not None and function.declaring and name not in function.values


def partial_error(name: Name, part: Part) -> Exception:
    """The error for state of a module of which a body sees only a part."""
    return _primitives.EffectError(
        f"state '{name}' belongs to a module that {part.how}, so inside it no longer stands for "
        "its place in the root call. Call it explicitly, "
        "`y, module = module.call_and_update(x)`, return `module` with the outputs of the body, "
        f"and assign the stacked result: `assign({name.field}=...)`."
    )


def pure(jaxpr: Any, fresh: Sequence[Name] = ()) -> Callable[..., tuple[list, Values]]:
    """`f(fixed, changing, *args) -> (outputs, new values of changing and fresh)`.

    The same function each time for one jaxpr, so that JAX's caches work as they would without us.
    It holds the jaxpr weakly, whose holder is whoever binds it.
    """
    make = functools.partial(_make_pure, weakref.ref(jaxpr), fresh)
    return _cache.get(jaxpr, ("pure", *fresh), make)


def pure_once(jaxpr: Any) -> Callable[..., tuple[list, Values]]:
    """The same for a jaxpr that nobody else holds: the function does."""
    return _make_pure(lambda: jaxpr, ())


def _make_pure(get_jaxpr: Callable[[], Any], fresh: Sequence[Name]) -> Callable:
    def run(fixed: Values, changing: Values, *args: Any) -> tuple[list, Values]:
        with _frames.replay({**fixed, **changing}, declaring=bool(fresh)) as frame:
            out = _jax.evaluate(get_jaxpr(), args)
            new = {name: frame.values[name] for name in changing}
            if isinstance(frame, _frames.FunctionFrame):
                new.update({name: (frame.first[name], frame.values[name]) for name in fresh})
            return out, new

    return run


def cached(jaxpr: Any, key: Any, make: Callable[[], Any]) -> Any:
    """What a rule builds from `pure(jaxpr)`, kept as long as the jaxpr."""
    return _cache.get(jaxpr, key, make)
