"""Who holds the current values of variables?"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _jax
from oryxstate._effects._names import FUNCTION, Name
from oryxstate._errors import EffectError

Leaves = tuple[Any, ...]


class Frame:
    """The variables of one root call, or of one run of a loop body inside it.

    Attributes:
        model: what is called, if this is the frame of a root call.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate._effects import _frames, _primitives
        >>> from oryxstate._effects._names import Name
        >>> count = Name(0, "counter", "n")
        >>> with _frames.replay({count: (jnp.array(1),)}) as frame:
        ...     (n,) = _primitives.read(count, frame.avals[count])
        ...     _ = _primitives.write(count, (n + 1,))
        >>> frame.values[count]
        (Array(2, dtype=int32, weak_type=True),)
    """

    def __init__(
        self, trace: _jax.Trace, values: Mapping[Name, Leaves], constant: Iterable[Name] = ()
    ):
        """Hold `values` at `trace`, those in `constant` as constants for gradients."""
        self.trace: _jax.Trace | None = trace
        self.values: dict[Name, Leaves] = {}
        self.avals: dict[Name, tuple] = {}
        self.written: set[Name] = set()
        self.model: Any = None
        self._entered = set(constant)
        self.hold(values)

    def hold(self, values: Mapping[Name, Leaves]) -> None:
        """Hold these variables too."""
        self.values.update(values)
        self.avals.update({name: avals_of(leaves) for name, leaves in values.items()})

    @property
    def closed(self) -> bool:
        """Whether the call that this frame belongs to has ended."""
        return self.trace is None

    def read(self, name: Name) -> Leaves:
        """The current value. State that enters a root call is a constant for gradients."""
        if name in self._entered:
            self._entered.discard(name)
            if not _jax.evaluates(self.trace):
                with _jax.set_current_trace(_jax.parent(self.trace)):
                    self.values[name] = tuple(map(_constant, self.values[name]))
        return self.values[name]

    def write(self, name: Name, leaves: Leaves) -> None:
        """Make this the current value."""
        if types_of(avals_of(leaves)) != types_of(self.avals[name]):
            raise shape_error(name, self.avals[name], avals_of(leaves), "written")
        self._entered.discard(name)
        self.written.add(name)
        self.values[name] = self.arrays(leaves)

    def arrays(self, leaves: Leaves) -> Leaves:
        """Leaves as arrays: a constant of a jaxpr comes as a typed Python scalar."""
        if all(isinstance(leaf, jax.Array) for leaf in leaves):
            return tuple(leaves)
        with _jax.set_current_trace(self.trace):  # within `bind` there may be none
            return tuple(map(_jax.as_array, leaves))

    def close(self) -> None:
        """Let go of all values, so that a frame that leaked keeps nothing alive."""
        self.trace = self.model = None
        self.values = {}
        self.avals = {}


class FunctionFrame(Frame):
    """The variables of a function: relative names, and none but its own.

    While the function is initialized it declares them; afterwards it only finds them.

    Attributes:
        declaring: whether variables are declared.
        first: the values with which they were declared.
        structures: the tree definition of each variable, by field.
        types: the types of its leaves where the function last named it.
        modules: whoever holds the modules among the variables.
    """

    def __init__(
        self,
        trace: _jax.Trace,
        values: Mapping[Name, Leaves],
        constant: Iterable[Name] = (),
        *,
        declaring: bool,
    ):
        super().__init__(trace, values, constant)
        self.declaring = declaring
        self.first: dict[Name, Leaves] = {}
        self.structures: dict[str, Any] = {}
        self.types: dict[str, tuple] = {}
        self.modules: Any = None

    def declare(self, name: Name, leaves: Leaves, structure: Any) -> None:
        """Create a variable with this first value."""
        self.first[name] = self.arrays(leaves)
        self.hold({name: self.first[name]})
        self.structures[name.field] = structure
        self.types.setdefault(name.field, avals_of(leaves))

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Find variables that are declared already, instead of declaring them."""
        declaring, self.declaring = self.declaring, False
        try:
            yield
        finally:
            self.declaring = declaring


def avals_of(leaves: Leaves) -> tuple[Any, ...]:
    """What JAX knows of values without their data."""
    return tuple(jax.typeof(x) for x in leaves)


def types_of(avals: tuple[Any, ...]) -> list[tuple]:
    """Shape, dtype and weak type: what an update must keep."""
    return [(aval.shape, aval.dtype, getattr(aval, "weak_type", False)) for aval in avals]


def _constant(leaf: Any) -> Any:
    # A concrete array and an integer have no tangent: nothing to stop, nothing to dispatch.
    if isinstance(leaf, _jax.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jax.lax.stop_gradient(leaf)
    return leaf


def show(avals: tuple) -> str:
    """Types as one reads them."""
    return ", ".join(
        f"{dtype}{list(shape)}{' (weak)' if weak else ''}" for shape, dtype, weak in types_of(avals)
    )


def shape_error(name: Name, held: tuple, given: tuple, verb: str) -> EffectError:
    """The error for a module whose leaves are not those of its place in the root call."""
    return EffectError(
        f"state '{name}' is {show(held)} in the root call but {show(given)} where it is {verb}. "
        "A module that is sliced or reshaped on its way into a loop or a function no longer "
        "stands for its place in the root: call it explicitly, "
        "`y, module = module.call_and_update(x)`, hand the new module back, and assign it."
    )


class _Stack(threading.local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []  # innermost last
        self.roots: list[Frame] = []  # by level


_stack = _Stack()


def level() -> int:
    """How many root calls are open in this thread: the level of the next one."""
    return len(_stack.roots)


def any_open() -> bool:
    """Whether a root call is open in this thread."""
    return bool(_stack.roots)


def root_at(index: int) -> Frame | None:
    """The open root call of this level, if there is one."""
    return _stack.roots[index] if 0 <= index < len(_stack.roots) else None


def find(trace: _jax.Trace, name: Name) -> Frame | None:
    """The frame that gives `name` its meaning at `trace`, if any does."""
    for frame in reversed(_stack.frames):
        if frame.trace is trace:
            if name in frame.values:
                return frame
            if name.level == FUNCTION and isinstance(frame, FunctionFrame):
                return frame
    return None


def innermost_function() -> FunctionFrame | None:
    """The frame of the function that is being initialized or called just now."""
    for frame in reversed(_stack.frames):
        if isinstance(frame, FunctionFrame):
            return frame
    return None


@contextlib.contextmanager
def pushed(frame: Frame, *, is_root: bool) -> Iterator[None]:
    """Put a frame on top of the stack. The stack is as before afterwards, whatever happened.

    JAX is intercepted while any thread has a frame: the first frame of a thread starts that.
    """
    frames, roots = _stack.frames, _stack.roots
    if not frames:
        _jax.start_intercepting()
    _stack.frames = [*frames, frame]
    if is_root:
        _stack.roots = [*roots, frame]
    try:
        yield
    finally:
        _stack.frames, _stack.roots = frames, roots
        if not frames:
            _jax.stop_intercepting()


@contextlib.contextmanager
def replay(values: Mapping[Name, Leaves], *, declaring: bool = False) -> Iterator[Frame]:
    """Hold these variables while a jaxpr is run under the current trace."""
    trace = _jax.current_trace()
    if declaring:
        frame: Frame = FunctionFrame(trace, values, declaring=True)
    else:
        frame = Frame(trace, values)
    with pushed(frame, is_root=False):
        yield frame
