"""Laws that make two runs of a module comparable.

They are checked first, and the first one that does not hold ends the check: the later laws compare
runs, and each would report the same fault in its own words.
"""

from __future__ import annotations

import contextlib
import random
import traceback
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

from oryxstate import _jax, _tree
from oryxstate._errors import EffectError
from oryxstate._module import _call
from oryxstate.testing._adapters import ChangedInPlace
from oryxstate.testing._differences import difference, is_key, type_difference
from oryxstate.testing._laws._case import Case, broken, expect_same, law, sentence
from oryxstate.testing._laws._faults import Fault, LawError, gist
from oryxstate.testing._walk import has_batched_rule

_KEEP_TYPES = {f.__code__ for f in (_tree.conform, _tree.conform_leaf, _call._same_type)}


@law
def runs(case: Case) -> None:
    """A call with these inputs succeeds."""
    plain(case)


@law
def stable_types(case: Case) -> None:
    """An update keeps the leaves of the module, and the shape, dtype and weak type of each."""
    _, new = plain(case)
    found = type_difference(new, case.module)
    if found is not None:
        raise Fault(sentence(found, "the updated module", "after the call", "before"))


def plain(case: Case, module: Any = None) -> tuple[Any, Any]:
    """Return the result of an untransformed call, to compare others with.

    Raises:
        LawError: of `stable_types` if the library refused an update of another type, else of
            `runs`.
    """
    try:
        return case.run(case.module if module is None else module, case.inputs)
    except Exception as error:
        raise _failed(case, error) from error


def _failed(case: Case, error: Exception) -> LawError:
    if isinstance(error, ChangedInPlace):
        return broken(purity, case, Fault(str(error)))
    frames = traceback.walk_tb(error.__traceback__)
    types = any(frame.f_code in _KEEP_TYPES for frame, _ in frames)
    return broken(stable_types if types else runs, case, _hinted(case, error))


def _hinted(case: Case, error: Exception) -> Exception:
    if case.batched or not isinstance(error, EffectError) or not has_batched_rule(case.module):
        return error
    return Fault(
        f"the call raised {gist(error)}. Give a batch of examples, and `batched=True` to map the "
        "call over them."
    )


@law
def no_stale_state(case: Case) -> None:
    """A call reads the state of the module that it is given, and of none before it."""
    old = jax.tree.map(lambda leaf: leaf.copy(), case.module)
    try:
        y, new = jax.block_until_ready(case.run(old, case.inputs))
    except Exception as error:
        if _jax.is_deletion(error):  # by an earlier check
            raise _stale(error) from error
        raise _failed(case, error) from error
    kept = {pointer for leaf in jax.tree.leaves((y, new)) for pointer in buffers(leaf)}
    for leaf in jax.tree.leaves(old):
        if buffers(leaf) and kept.isdisjoint(buffers(leaf)):
            leaf.delete()  # nobody else has it
    try:
        case.run(new, case.inputs)
    except Exception as error:
        if not _jax.is_deletion(error):
            raise
        raise _stale(error) from error


def _stale(error: Exception) -> Fault:
    return Fault(
        "the call of an updated module read an array of the module before the update: it is kept "
        f"somewhere, in a cache or a closure ({gist(error)}). Read `self` in each call."
    )


def buffers(leaf: Any) -> set[int]:
    """Return the addresses of the memory of an array; none for an empty one."""
    if not isinstance(leaf, jax.Array) or leaf.size == 0:
        return set()
    data = jax.random.key_data(leaf) if is_key(leaf) else leaf
    return {shard.data.unsafe_buffer_pointer() for shard in data.addressable_shards}


@law
def purity(case: Case) -> None:
    """A call changes neither its inputs nor the module, and leaks no tracer."""
    given = case.module, case.args, dict(case.kwargs)
    _expect_untouched(case, *_copied(given, writable=True))
    _expect_untouched(case, *_copied(given, writable=False))  # here writing raises
    try:
        with jax.checking_leaks():
            jax.make_jaxpr(case.run)(case.module, case.inputs)
    except Exception as error:
        if "Leaked" not in str(error):
            return  # it cannot be traced, which `jit_is_eager` says
        raise Fault(
            f"a tracer outlives the call: {_holders(error)}. What is kept of a call is a value of "
            f"JAX's tracing there: return it{', or `self.assign` it' * _is_module(case)}."
        ) from error


def _copied(tree: Any, *, writable: bool) -> Any:
    """Copy a pytree into new NumPy arrays."""

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return leaf
        leaf = leaf.copy()
        leaf.flags.writeable = writable
        return leaf

    return jax.tree.map(copy, tree)


def _expect_untouched(case: Case, module: Any, args: tuple, kwargs: dict) -> None:
    before = [_copied(tree, writable=True) for tree in (module, args, kwargs)]
    if case.batched:
        case.run(module, eqx.filter(args, _tree.is_array))
    else:  # with the very containers
        case.call(module, *args, **kwargs)
    after = module, args, kwargs
    parts = "the module", "the arguments", "the keywords"
    for part, old, new in zip(parts, before, after, strict=True):
        gone = [leaf for leaf in jax.tree.leaves(new) if getattr(leaf, "is_deleted", bool)()]
        if gone:
            raise Fault(f"an array of {part} was deleted by the call.")
        found = difference(new, old, tolerance=0.0)
        if found is not None:
            raise Fault(sentence(found, part, "after the call", "before"))


def _holders(error: Exception) -> str:
    """Name the references to a leaked tracer, from the message of JAX."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    holders = [line.partition(" is referred to by ")[2] for line in lines if "referred to" in line]
    named = [name for name in dict.fromkeys(holders) if not name.startswith(("<", "the local"))]
    return f"`{'`, `'.join(named)}` refers to it" if named else gist(error)


def _is_module(case: Case) -> bool:
    return case.adapted is None or case.adapted.kind == "module"


@law
def reproducible(case: Case) -> None:
    """A second call with the same module and inputs gives the same as the first."""
    with _global_generators():
        first = plain(case)
    with _global_generators():
        second = plain(case)
    expect_same(case, second, first, ("at the second call", "at the first"))


@law
def rng_order(case: Case) -> None:
    """Random numbers come from keys: what else was drawn before does not change them."""
    with _global_generators():
        first = plain(case)
    with _global_generators():
        random.seed(random.random())
        np.random.seed(np.random.randint(2**31))
        second = plain(case)
    ways = "after a draw from `random` and `numpy.random`", "without; draw from a key of JAX"
    expect_same(case, second, first, ways)


@contextlib.contextmanager
def _global_generators() -> Iterator[None]:
    """Restore Python's and NumPy's global generators afterwards."""
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
