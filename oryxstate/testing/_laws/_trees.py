"""Laws of a module as a pytree and as a value."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax

from oryxstate import _tree
from oryxstate._module._base import Module
from oryxstate.testing._differences import difference
from oryxstate.testing._laws._calls import plain
from oryxstate.testing._laws._case import Case, expect_same, law, sentence
from oryxstate.testing._laws._faults import Fault, NotApplicable, gist
from oryxstate.testing._walk import statics


@law
def pytree_round_trip(case: Case) -> None:
    """Flattening and unflattening give the module back, each leaf under a path of its own."""
    leaves, treedef = jax.tree.flatten(case.module)
    again = jax.tree.unflatten(treedef, leaves)
    if type(again) is not type(case.module):
        raise Fault(f"the module comes back as {type(again).__name__}.")
    changed = static_difference(again, case.module)
    if changed:
        raise Fault(f"{changed} when unflattened: a field was set behind the module's back.")
    back, treedef_again = jax.tree.flatten(again)
    if not _equal_structures(treedef_again, treedef):
        raise Fault(f"the structure comes back as {treedef_again}, but was {treedef}.")
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(case.module)]
    same = [a is b for a, b in zip(leaves, back, strict=True)]
    if not all(same):
        raise Fault(f"another leaf comes back at `{_tree.keystr(paths[same.index(False)])}`.")
    double = [path for path in paths if paths.count(path) > 1]
    if double:
        raise Fault(f"two leaves have the path `{_tree.keystr(double[0])}`.")


def _equal_structures(one: Any, other: Any) -> bool:
    try:
        return one == other
    except ValueError:  # of arrays in static fields, which the next law finds
        return True


def static_difference(new: Any, old: Any) -> str:
    """Return the first static field that differs, in words; empty if none does."""
    mine, other = statics(new), statics(old)
    for path in other:
        if path in mine and not _equal(mine[path], other[path]):
            return f"the static field `{path}` is {mine[path]!r}, but was {other[path]!r}"
    return ""


def _equal(value: Any, other: Any) -> bool:
    if value is other:
        return True
    return type(value) is type(other) and not _tree.is_array(value) and value == other


@law
def no_static_array(case: Case) -> None:
    """No static field holds an array, which JAX would neither trace nor update."""
    fields = statics(case.module) if case.adapted is None else case.adapted.statics
    if fields is None:
        raise NotApplicable("its library keeps constants apart from arrays")
    found = [f"{path}{inner}" for path, value in fields.items() for inner in _arrays(value)]
    if found:
        raise Fault(f"`{found[0]}` is an array in a static field. {_dynamic(case)}")


def _dynamic(case: Case) -> str:
    ours = case.adapted is None or case.adapted.kind == "module"
    return "Declare it `ox.param()` or `ox.state()`." if ours else "Declare it without `static`."


def _arrays(value: Any, path: str = "") -> Iterator[str]:
    """Yield paths to the arrays in a static value, in containers and dataclasses."""
    if _tree.is_array(value):
        yield path
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name, None), f"{path}.{field.name}")
    elif isinstance(value, tuple | list | set | frozenset):
        for i, member in enumerate(value):
            yield from _arrays(member, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _arrays(member, f"{path}[{key!r}]")


@law(kinds=["module"], otherwise="its calls return no updated model")
def update_round_trip(case: Case) -> None:
    """The updated module is the old one with its leaves, or its fields, put in."""
    _, new = plain(case)
    leaves = jax.tree.leaves(new)
    ways = "put into the old module with `{}`", "in the update"
    put = eqx.tree_at(jax.tree.leaves, case.module, leaves) if leaves else case.module
    _expect_equal(put, new, (ways[0].format("equinox.tree_at"), ways[1]))
    if isinstance(new, Module):
        fields = {name: getattr(new, name) for name in new.__layout__.data}
        put = case.module.replace(**fields)
        _expect_equal(put, new, (ways[0].format("replace"), ways[1]))


def _expect_equal(got: Any, want: Any, ways: tuple[str, str]) -> None:
    found = difference(got, want, tolerance=0.0)
    if found is not None:
        raise Fault(sentence(found, "the module", *ways))
    if jax.tree.structure(got) != jax.tree.structure(want):
        why = static_difference(got, want) or "its static data differ"
        raise Fault(f"the module has another structure {ways[0]} than {ways[1]}: {why}.")


@law
def serialization_round_trip(case: Case) -> None:
    """Pickling and unpickling give a module of the same structure, arrays and results."""
    if case.adapted is None or case.adapted.kind != "functions":  # there it is not the model
        _expect_equal(copy.deepcopy(case.module), case.module, ("in a deep copy", "in the module"))
    try:
        data = pickle.dumps(case.module)
    except Exception as error:  # of a class in a function, or a lambda among the static fields
        raise NotApplicable(f"it cannot be pickled: {gist(error)}") from error
    twin = pickle.loads(data)
    _expect_equal(twin, case.module, ("unpickled", "pickled"))
    expect_same(case, plain(case, twin), plain(case), ("after pickling", "before"))
