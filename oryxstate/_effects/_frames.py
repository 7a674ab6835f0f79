"""Frames: the variables of a root call, and the stack of those that are open.

A root call opens a frame. When code of one of its jaxprs, or a rule of a custom derivative, runs
again later, a *replay* holds the same variables for that long, in place of the frame.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from oryxstate import _interception, _jax, _jaxprs
from oryxstate._effects._names import FUNCTION, SOWN, Name
from oryxstate._errors import EffectError

Leaves = tuple[Any, ...]


class Variable:
    """What is known of one variable.

    Attributes:
        leaves: the current value.
        avals: the types of its leaves, which never change.
        treedef: its structure, None where only leaves are needed.
        written: whether it was written since the frame was opened.
        first: the value with which a function declared it.
    """

    __slots__ = ("avals", "first", "leaves", "treedef", "written")

    def __init__(self, leaves: Leaves, treedef: Any = None):
        self.leaves, self.treedef = leaves, treedef
        self.avals = avals_of(leaves)
        self.written, self.first = False, leaves

    @property
    def value(self) -> Any:
        """The current value as a pytree."""
        return jax.tree.unflatten(self.treedef, self.leaves)


class Declared(NamedTuple):
    """The type of a variable, known from where the code declares it on."""

    treedef: Any
    avals: tuple[Any, ...]


class Frame:
    """The variables of one root call, of one function, or of a replay.

    Attributes:
        trace: where the variables live; None once the call has ended.
        level: how many root calls were open around it; -1 for a replay; `SOWN` or less for a
            capture.
        identity: a number that no other frame has; that of a function is the same at each call,
            since JAX may have cached programs inside the function.
        variables: the variables by name.
        declaring: for a function, whether it declares variables now or finds them; else None.
        awaited: for a replay, the variables that are declared in it.
        declared: the types of the variables, of those too that have no value here yet.
        model: what is called.
        inside: where in an outer root call it stands, for what reports paths.
        paths: where the modules in it stand that are not live, by `id`.
        modules: for a function, whatever holds the modules among its variables.
        stands_for: for a replay, the frames whose variables it holds.
        handed_out: the paths of modules that were flattened, and may come back as values.
        sown: for a capture or a replay, what was sown, by name.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate._effects import _frames, _primitives
        >>> from oryxstate._effects._names import Name
        >>> count = Name(0, "counter", "n")
        >>> with _frames.replay({count: (jnp.array(1),)}) as frame:
        ...     (n,) = _primitives.read(count, frame.variables[count].avals)
        ...     _ = _primitives.write(count, (n + 1,))
        >>> frame.variables[count].leaves
        (Array(2, dtype=int32, weak_type=True),)
    """

    def __init__(self, trace: _jax.Trace, level: int = -1, declaring: bool | None = None):
        self.trace: _jax.Trace | None = trace
        self.level, self.declaring = level, declaring
        self.identity = next(_identities)
        self.variables: dict[Name, Variable] = {}
        self.awaited: Collection[Name] = ()
        self.declared: dict[Name, Declared] = {}
        self.model: Any = None
        self.inside = ""
        self.paths: dict[int, str] = {}
        self.modules: Any = None
        self.stands_for: tuple[Frame, ...] = ()
        self.handed_out: set[str] = set()
        self.sown: dict[Name, list[tuple[Leaves, Any]]] | None = None

    @property
    def ended(self) -> bool:
        """Whether the call that this frame belongs to has ended."""
        return self.trace is None

    def add(self, name: Name, leaves: Leaves, treedef: Any = None) -> Variable:
        """Hold another variable."""
        self.variables[name] = variable = Variable(leaves, treedef)
        self.declared.setdefault(name, Declared(treedef, variable.avals))
        return variable

    def awaits(self, name: Name) -> bool:
        """Tell whether this variable is still to be declared here."""
        if name.level == self.level <= SOWN and name not in self.variables:
            self.add(name, (np.int32(0),))  # what a capture counts; JAX may have traced that before
            return True
        if not self.declaring or name in self.variables:
            return False
        return name.level in (FUNCTION, self.level) or name in self.awaited

    def write(self, name: Name, leaves: Leaves) -> None:
        """Make this the current value."""
        variable = self.variables[name]
        given = avals_of(leaves)
        if types_of(given) != types_of(variable.avals):
            raise shape_error(name, variable.avals, given, "written")
        variable.written = True
        variable.leaves = self.arrays(leaves)

    def arrays(self, leaves: Leaves) -> Leaves:
        """Convert leaves to arrays: a constant of a jaxpr comes as a typed Python scalar."""
        if all(isinstance(leaf, jax.Array) for leaf in leaves):
            return tuple(leaves)
        with _jax.set_current_trace(self.trace):  # within `bind` there may be none
            return tuple(map(_jaxprs.as_array, leaves))

    def close(self) -> None:
        """Let go of all values, so that a frame that leaked keeps none alive."""
        self.trace = self.model = None
        if self.modules is not None:  # a rule that runs later still asks for variables by name
            self.modules.close()
        for variable in self.variables.values():
            variable.leaves = variable.first = ()
        self.sown = None


_identities = itertools.count(1)


def avals_of(leaves: Leaves) -> tuple[Any, ...]:
    """Return what JAX knows of values without their data."""
    return tuple(jax.typeof(x) for x in leaves)


def types_of(avals: tuple[Any, ...]) -> list[tuple]:
    """Return shapes, dtypes and weak types: what an update must keep."""
    return [(aval.shape, aval.dtype, getattr(aval, "weak_type", False)) for aval in avals]


def show(avals: tuple) -> str:
    """Return types in words."""
    return ", ".join(
        f"{dtype}{list(shape)}{' (weak)' if weak else ''}" for shape, dtype, weak in types_of(avals)
    )


def shape_error(name: Name, held: tuple, given: tuple, verb: str) -> EffectError:
    """Return the error for a module whose leaves are not those of its place in the root call."""
    return EffectError(
        f"state '{name}' is {show(held)} in the root call but {show(given)} where it is {verb}. "
        "A module that is sliced or reshaped on its way into a loop or a function no longer "
        "stands for its place in the root: call it explicitly, "
        "`y, module = module.call_and_update(x)`, hand the new module back, and assign it."
    )


# The stack ----------------------------------------------------------------------------------------


class _Stack(threading.local):
    def __init__(self) -> None:
        self.frames: tuple[Frame, ...] = ()  # of this thread, innermost last
        self.member = ""  # of a list, tuple or dict of models that is being called


_stack = _Stack()


def level() -> int:
    """Return the level of the next root call: above all that are open, or that replays hold."""
    return 1 + max((-1, *(root.level for root in _roots())))


def member() -> str:
    """Return where the next root call stands in the list, tuple or dict that is being called."""
    return _stack.member


@contextlib.contextmanager
def of_member(key: str) -> Iterator[None]:
    """Call a member of a list, tuple or dict, under its key in paths."""
    before, _stack.member = _stack.member, _stack.member + key
    try:
        yield
    finally:
        _stack.member = before


def within_call() -> bool:
    """Tell whether a root call is open in this thread, or code of one runs again."""
    return level() > 0


def active() -> bool:
    """Tell whether any frame is open in this thread, that of a replay or of a capture included."""
    return bool(_stack.frames)


def at_level(level: int) -> Frame | None:
    """Find the frame of the root call at a level, which a replay may stand for."""
    return next((root for root in _roots() if root.level == level), None)


def _roots() -> Iterator[Frame]:
    """All frames, innermost first, and those that replays stand for."""
    for frame in reversed(_stack.frames):
        yield frame
        yield from frame.stands_for


def innermost() -> Frame | None:
    """Find the frame of the innermost root call."""
    return next((frame for frame in reversed(_stack.frames) if frame.level >= 0), None)


def standing_for(root: Frame | None) -> Frame | None:
    """Find the innermost frame with variables of this root call: its own, or that of a replay."""
    for frame in reversed(_stack.frames):
        if root is frame or root in frame.stands_for:
            return frame
    return None


def find(trace: _jax.Trace, name: Name) -> Frame | None:
    """Find the frame that gives `name` its meaning at `trace`, if any does."""
    for frame in reversed(_stack.frames):
        if frame.trace is trace:
            if name in frame.variables or frame.awaits(name):
                return frame
            if name.level == FUNCTION and frame.declaring is not None:
                return frame
    return None


def collector(trace: _jax.Trace, name: Name) -> Frame | None:
    """Find the frame that collects what is sown under `name` at `trace`."""
    for frame in reversed(_stack.frames):
        if frame.trace is trace and frame.sown is not None and frame.level in (-1, name.level):
            return frame
    return None


def innermost_function() -> Frame | None:
    """Find the frame of the function that is being initialized or called just now.

    A root call of a module in it is not part of it.
    """
    frames = (f for f in reversed(_stack.frames) if f.declaring is not None or f.level >= 0)
    frame = next(frames, None)
    return frame if frame is not None and frame.declaring is not None else None


@contextlib.contextmanager
def _with_stack(frames: tuple[Frame, ...]) -> Iterator[None]:
    """Replace the stack. JAX is intercepted while any thread has a frame."""
    before = _stack.frames
    begins = bool(frames) and not before
    if begins:
        _interception.start_intercepting()
    _stack.frames = frames
    try:
        yield
    finally:
        _stack.frames = before
        if begins:
            _interception.stop_intercepting()


@contextlib.contextmanager
def opened(trace: _jax.Trace, declaring: bool | None = None) -> Iterator[Frame]:
    """Open the frame of a root call, or of a function; the stack is as before afterwards."""
    frame = Frame(trace, level(), declaring)
    with _with_stack((*_stack.frames, frame)):
        try:
            yield frame
        finally:
            frame.close()


@contextlib.contextmanager
def capturing() -> Iterator[Frame]:
    """Open a frame that collects what is sown for it."""
    frame = Frame(_jax.current_trace(), SOWN - len(captures()))
    frame.sown = {}
    with _with_stack((*_stack.frames, frame)):
        try:
            yield frame
        finally:
            frame.close()


def captures() -> list[Frame]:
    """Find the frames of the captures that are open in this thread, outermost first."""
    return [frame for frame in _stack.frames if frame.level <= SOWN]


@contextlib.contextmanager
def replay(
    values: Mapping[Name, Leaves],
    roots: tuple[Frame, ...] = (),
    *,
    declared: Sequence[Name] = (),
    collecting: bool = True,
) -> Iterator[Frame]:
    """Hold these variables under the current trace, while code that uses them runs again.

    Args:
        values: the variables.
        roots: the frames that they are from, where the code is Python that may hold live modules.
        declared: the variables of a function that are declared in it.
        collecting: whether what is sown meanwhile is collected here.
    """
    frame = Frame(_jax.current_trace(), declaring=True if declared else None)
    frame.sown = {} if collecting else None
    frame.stands_for, frame.awaited = roots, declared
    function = innermost_function() if declared else None
    if function is not None:
        frame.modules = function.modules
    for root in roots:
        if root.declaring is not None:
            frame.declaring, frame.declared = False, root.declared
            frame.modules = root.modules
    for name, leaves in values.items():
        frame.add(name, leaves)
    with _with_stack((*_stack.frames, frame)):
        yield frame


def isolated() -> contextlib.AbstractContextManager[None]:
    """Hide all frames: what runs on the host belongs to no root call."""
    return _with_stack(())
