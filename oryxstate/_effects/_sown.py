"""Values that are sown: carried out of wherever code runs, to the capture that asked for them.

A sown value is an effect like a write, but of no variable: every value is kept. Where a primitive
is rebuilt (see `_functionalize`), what was sown inside is one more output of it, stacked by loops.
Transformations add an axis in front (`vmap`) or see through it (`grad`: the value is the primal).
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from oryxstate import _jax, _jaxprs, _tree
from oryxstate._effects import _frames
from oryxstate._effects._names import KEY_AXIS, Name, StateEffect
from oryxstate._errors import EffectError


class Maybe(NamedTuple):
    """A captured value of a branch that may not have been taken, or a loop that may not have run.

    Attributes:
        value: the value, zeros where there is none.
        taken: a bool, whether there is one; both are stacked by loops and mapped by `vmap`.
    """

    value: Any
    taken: Any


class Form(NamedTuple):
    """What is known of a sown value without its data.

    Attributes:
        treedef: its structure.
        axes: for each axis that was put in front of it, what it is of: a number that is that of the
            loop, or `None` for the examples of a `vmap` and the devices of a `shard_map`.
    """

    treedef: Any
    axes: tuple[int | None, ...] = ()

    def stacked(self, loop: int | None) -> Form:
        """Return the form with one more axis in front."""
        return Form(self.treedef, (loop, *self.axes))

    @property
    def is_maybe(self) -> bool:
        """Whether the value says itself if there is one."""
        return isinstance(jax.tree.unflatten(self.treedef, [0] * self.treedef.num_leaves), Maybe)

    def maybe(self) -> Form:
        """Return the form of such a value, of which the last leaf says whether there is one."""
        if self.is_maybe:
            return self
        value = jax.tree.unflatten(self.treedef, [0] * self.treedef.num_leaves)
        return Form(jax.tree.structure(Maybe(value, 0)), self.axes)


class _SowPrimitive(_jax.Primitive):
    """A primitive without outputs, handled by the frame that collects its name."""

    def bind_with_trace(self, trace, args, avals, params, /):
        name, form = params["var"], params["form"]
        while isinstance(trace, _jax.ForwardingTrace) and not _frames.collector(trace, name):
            trace = _jax.parent(trace)
        frame = _frames.collector(trace, name)
        if frame is not None and frame.sown is not None:
            frame.sown.setdefault(name, []).append((tuple(args), form))
            return []
        if not _jax.wraps_parent(trace):
            return super().bind_with_trace(trace, args, avals, params)
        below = _jax.parent(trace)
        parts = [_jax.split(trace, x) or (x, None) for x in args]
        args = [value for value, _ in parts]
        if not _jax.differentiates(trace):
            axis_name, size = _jax.mapped_axis(trace)
            with _jax.set_current_trace(below):
                if axis_name == KEY_AXIS:  # of our own: it stands for the key of an initialization
                    args = [x if dim is None else jnp.take(x, 0, axis=dim) for x, dim in parts]
                else:
                    args = [_in_front(x, dim, size) for x, dim in parts]
                    form = form.stacked(None)
        with _jax.set_current_trace(below):
            return self.bind(*args, var=name, form=form)


def _in_front(x: Any, dim: int | None, size: int) -> Any:
    if dim is None:
        return jnp.broadcast_to(x, (size, *jnp.shape(x)))
    return jnp.moveaxis(x, dim, 0)


sow_p = _SowPrimitive("sow")


def sow(name: Name, leaves: Sequence, form: Form) -> None:
    """Hand a value to the frame that collects this name."""
    sow_p.bind(*leaves, var=name, form=form)


def forms(jaxpr: Any) -> dict[Name, list[tuple[tuple, Form]]]:
    """Return what a jaxpr sows, `(types, form)` in order by name; what is inside is outside now."""
    if jaxpr not in _forms:
        _forms[jaxpr] = _find_forms(jaxpr)
    return _forms[jaxpr]


_forms: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _find_forms(jaxpr: Any) -> dict[Name, list[tuple[tuple, Form]]]:
    found: dict[Name, list[tuple[tuple, Form]]] = {}
    for eqn in _jaxprs.equations(jaxpr):
        if eqn.primitive is sow_p:
            avals = tuple(var.aval for var in eqn.invars)
            found.setdefault(eqn.params["var"], []).append((avals, eqn.params["form"]))
    return found


def values(frame: _frames.Frame, name: Name) -> list[_frames.Leaves]:
    """Return what a frame collected under a name."""
    return [leaves for leaves, _ in (frame.sown or {})[name]]


def stacked(sown: dict[Name, list[Form]], reverse: bool = False) -> dict[Name, list[Form]]:
    """Return the forms of what a loop stacks; its number is negative if it runs backwards."""
    loop = -next(_loops) if reverse else next(_loops)
    return {name: [form.stacked(loop) for form in kinds] for name, kinds in sown.items()}


_loops = itertools.count(1)


# Values that may not be there ---------------------------------------------------------------------


def not_yet(found: dict[Name, list[tuple[tuple, Form]]]) -> tuple[dict, dict[Name, list[Form]]]:
    """Return what stands for values that a loop has not sown yet, and the forms of them."""
    sown = {name: [absent(*kind) for kind in kinds] for name, kinds in found.items()}
    forms = {name: [form.maybe() for _, form in kinds] for name, kinds in found.items()}
    return sown, forms


def nothing(jaxpr: Any) -> dict[Name, list[_frames.Leaves]]:
    """Return zeros in place of what a jaxpr sows."""
    return {
        name: [tuple(map(_zeros, avals)) for avals, _ in kinds]
        for name, kinds in forms(jaxpr).items()
    }


def absent(avals: Sequence, form: Form) -> _frames.Leaves:
    """Return the leaves of a `Maybe` without a value."""
    leaves = tuple(map(_zeros, avals))
    return leaves if form.is_maybe else (*leaves, jnp.asarray(False))


def _zeros(aval: Any) -> Any:
    if not jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        return _jax.convert(jnp.zeros(aval.shape, aval.dtype), aval.dtype, aval.weak_type)
    data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    return jax.random.wrap_key_data(jnp.zeros(data.shape, data.dtype), impl=_tree.key_impl(aval))


def taken(leaves: _frames.Leaves, kind: tuple[tuple, Form]) -> _frames.Leaves:
    """Return the leaves of a `Maybe` with a value."""
    return tuple(leaves) if kind[1].is_maybe else (*leaves, jnp.asarray(True))


class Slot(NamedTuple):
    """A value that some branches of a `cond` sow.

    Attributes:
        name: its name.
        kind: its types and its form.
        at: its position among the values of this name, in each branch that sows it.
    """

    name: Name
    kind: tuple[tuple, Form]
    at: dict[int, int]


def slots(branches: Sequence[Any]) -> list[Slot]:
    """Return what branches sow; the same value of two of them shares a slot."""
    found: dict[Any, Slot] = {}
    for b, jaxpr in enumerate(branches):
        for name, kinds in forms(jaxpr).items():
            for i, kind in enumerate(kinds):
                key = name, i, tuple(_frames.types_of(kind[0])), kind[1]
                found.setdefault(key, Slot(name, kind, {})).at[b] = i
    return list(found.values())


def of_branch(slots: Sequence[Slot], branch: int, count: int, new: dict) -> dict:
    """Return what one of `count` branches sows, by slot, and take it out of `new`."""
    sown: dict[Name, list] = {}
    for slot in slots:
        at = slot.at.get(branch)
        if len(slot.at) == count:
            leaves = new[slot.name][at]
        else:
            leaves = absent(*slot.kind) if at is None else taken(new[slot.name][at], slot.kind)
        sown.setdefault(slot.name, []).append(leaves)
    return {**new, **sown}


def forms_of(slots: Sequence[Slot], count: int) -> dict[Name, list[Form]]:
    """Return the forms of what comes out of `count` branches."""
    found: dict[Name, list[Form]] = {}
    for slot in slots:
        form = slot.kind[1]
        found.setdefault(slot.name, []).append(form if len(slot.at) == count else form.maybe())
    return found


# Without a capture --------------------------------------------------------------------------------


def _abstract(*avals, var, form):
    return [], {StateEffect(var)}


def _unheard(*args, var, form):
    raise EffectError(
        f"`{var}` is captured in code that JAX runs where no capture sees it: inside a JAX "
        "primitive that oryxstate has no rule for, on the host, or after `ox.capture` has "
        "returned. Return the value from there instead."
    )


def _never(*_, **__):
    raise NotImplementedError("`sow` is bound below transformations")


_jax.define_primitive(sow_p, impl=_unheard, abstract_eval=_abstract, jvp=_never, batch=_never)
