"""Names of axes that the values of annotations bind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, NewType, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, given, settings
from jaxtyping import Array, Float, PyTree

import oryxstate as ox
from oryxstate.testing import check_module, inputs, modules, values
from oryxstate.testing._bound import bind, bind_all
from oryxstate.testing._dimensions import Scope

N = Float[Array, "n"]
Vector = NewType("Vector", N)


class Pair(NamedTuple):
    left: N
    right: Any = None


class Entry(TypedDict):
    value: N
    other: NotRequired[Float[Array, "m"]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plain:
    value: N
    inner: Pair | None = None


class Inner(ox.Module):
    value: N


X = np.zeros(3, np.float32)
HOLDERS = {
    "array": (N, X),
    "alias": (Vector, X),
    "final": (Final[N], X),
    "annotated": (Annotated[N, "text"], X),
    "union": (N | None, X),
    "list": (list[N], [X]),
    "sequence": (Sequence[N], (X,)),
    "tuple": (tuple[int, N], (1, X)),
    "tuple of any length": (tuple[N, ...], (X, X)),
    "dict": (dict[str, N], {"a": X}),
    "mapping": (Mapping[str, N], {"a": X}),
    "named tuple": (Pair, Pair(X)),
    "typed dict": (Entry, {"value": X}),
    "dataclass": (Plain, Plain(X)),
    "nested": (list[Plain], [Plain(X, Pair(X))]),
    "pytree": (PyTree[N], {"a": [X]}),
    "shape": (N, jax.ShapeDtypeStruct((3,), jnp.float32)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_names_are_bound_wherever_an_array_is(name):
    scope = Scope({})
    bind(*HOLDERS[name], scope)
    assert scope.axes == {"n": 3}


UNBOUND = {
    "a module has names of its own": (Inner, Inner(jnp.zeros(3))),
    "another rank": (N, np.zeros((3, 3))),
    "another container": (list[N], {"a": X}),
    "another class": (Plain, Pair(X)),
    "no generic of ours": (type[int], int),
    "not broadcast": (Float[Array, "#n"], X),
}


@pytest.mark.parametrize("name", UNBOUND)
def test_what_binds_nothing(name):
    scope = Scope({})
    bind(*UNBOUND[name], scope)
    assert scope.axes == {}


@pytest.mark.parametrize(
    ("shape", "length", "wanted"),
    [("n-1", 3, 4), ("n+1", 3, 2), ("2*n", 6, 3), ("n//2", 3, 6), ("min(n,5)", 4, 4)],
)
def test_an_expression_binds_its_name(shape, length, wanted):
    scope = Scope({})
    bind(Float[Array, shape], np.zeros(length), scope)
    assert scope.axes == {"n": wanted}


def test_an_expression_says_less_than_a_name():
    scope = Scope({})
    bind_all([(Float[Array, "n//2"], np.zeros(2)), (N, np.zeros(5))], scope)
    assert scope.axes == {"n": 5}


@pytest.mark.parametrize("shape", ["2*n", "n+m", "{size}-1", "7//n"])
def test_an_expression_that_is_not_solved(shape):
    scope = Scope({})
    bind(Float[Array, shape], np.zeros(9), scope)
    assert scope.axes == {}


def test_structures_and_their_leaves():
    scope, tree = Scope({}), {"a": np.zeros(2), "b": np.zeros(3)}
    bind(PyTree[Float[Array, "?n"], "T"], tree, scope)
    assert scope.trees == {"T": jax.tree.structure(tree)}
    assert sorted(scope.axes.values()) == [2, 3]
    bind(Float[Array, "*batch n"], np.zeros((4, 5, 6)), scope)
    assert scope.variadic == {"batch": (4, 5)}


class Shifted(ox.Module):
    """A kernel that is shorter than the input."""

    kernel: Float[Array, "n-1"]
    table: dict[str, PyTree[Float[Array, "?m"], "T"]]

    def call(self, x: N, tree: PyTree[Float[Array, "?m"], "T"]) -> N:
        (own,) = self.table.values() or (tree,)
        total = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), own, tree)))
        return x.at[1:].multiply(self.kernel) + total


@settings(max_examples=5)
@given(inputs(Shifted(jnp.ones(2), {"a": [jnp.ones(1), jnp.ones(4)]})))
def test_inputs_fit_the_fields(call):
    (x, tree), _ = call
    assert x.shape == (3,) and [leaf.shape for leaf in tree] == [(1,), (4,)]


class Numpy(ox.Module):
    """Says that an argument is an array of NumPy."""

    scale: N

    def call(self, x: Float[np.ndarray, "n"], *more: N, y: Float[np.ndarray, "n"] | None = None):
        return self.scale * x + sum(more) + (0 if y is None else y)


def test_arrays_of_numpy_where_they_are_wanted():
    report = check_module(Numpy(jnp.ones(3)), X, X, y=X, laws=["annotations_hold"])
    assert report.checked == ("annotations_hold",)


class Keyed(ox.Module):
    """Has a field of each container that shares names."""

    entry: Entry
    plain: Plain
    sizes: Sequence[int] = ox.static()

    def call(self, x: N) -> N:
        return x * self.entry["value"] * self.plain.value


def test_fields_share_names():
    @settings(max_examples=10)
    @given(modules(Keyed))
    def test(module):
        assert module.entry["value"].shape == module.plain.value.shape
        assert type(module.sizes) is tuple

    test()
    assert "other" not in find(values(Entry), lambda entry: True)
    assert find(values(Entry), lambda entry: "other" in entry)["other"].shape == (1,)
