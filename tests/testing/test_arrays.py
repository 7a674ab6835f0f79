"""The strategy `arrays`, compared with jaxtyping's reading of the annotation."""

from __future__ import annotations

import re
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, find, given, settings
from hypothesis import strategies as st
from jaxtyping import (
    Array,
    BFloat16,
    Bool,
    Complex,
    Float,
    Float16,
    Inexact,
    Int,
    Integer,
    Key,
    Num,
    PRNGKeyArray,
    PyTree,
    Real,
    Scalar,
    Shaped,
    UInt,
    jaxtyped,
)

import oryxstate as ox
from oryxstate.testing import Sizes, array_specs, arrays, keys, pytrees, values
from oryxstate.testing._dimensions import axes_of

KINDS = (Float, Int, UInt, Bool, Num, Inexact, Shaped, Real, Integer, Complex, Float16, BFloat16)
WORDS = ("a", "b", "3", "0", "#a", "#4", "_", "a+1", "2*a", "a*b-1", "rows=3", "k=a", "#a+b", "_x")
VARIADIC = ("...", "*batch", "*#batch", "#*batch", "*other")

words = st.lists(st.sampled_from(WORDS), max_size=3)
shapes = st.builds(
    lambda before, dots, after: " ".join([*before, *dots, *after]),
    words,
    st.lists(st.sampled_from(VARIADIC), max_size=1),
    words,
)
annotations = st.builds(lambda kind, shape: kind[Array, shape], st.sampled_from(KINDS), shapes)


@settings(max_examples=100)
@given(st.data(), st.sampled_from(["a b", "#a #b a b", "*#batch b a", "*batch a #b b"]))
def test_arrays_of_one_scope_are_what_jaxtyping_says(data, first):
    """Names that an expression needs come first, as jaxtyping wants it."""
    hints = [Float[Array, first], *data.draw(st.lists(annotations, max_size=4))]
    sizes = Sizes()
    drawn = [data.draw(arrays(hint, sizes=sizes)) for hint in hints]
    with jaxtyped("context"):
        for hint, array in zip(hints, drawn, strict=True):
            assert isinstance(array, hint), (hint, array.shape)


@given(st.data(), annotations)
def test_the_oracle_refuses_what_does_not_fit(data, hint):
    """An array of another shape fails the same check, unless axes may be any."""
    assume(not re.search(r"\.\.\.|\*|_", hint.dim_str))
    array = data.draw(arrays(Float[Array, "a b"], sizes={"a": 2, "b": 2}))
    drawn = data.draw(arrays(hint, sizes={"a": 2, "b": 2}))
    with jaxtyped("context"):
        assert isinstance(array, Float[Array, "a b"]) and isinstance(drawn, hint)
        assert not isinstance(drawn[None], hint)


@given(st.data())
def test_a_mapping_binds_names_of_one_strategy(data):
    given = {"n": 2, "batch": (1, 3)}
    one = data.draw(arrays(Float[Array, "*batch n m"], sizes=given))
    assert one.shape[:3] == (1, 3, 2) and given == {"n": 2, "batch": (1, 3)}
    two = data.draw(arrays(Int[Array, "n m"], sizes={"n": st.just(5), "m": one.shape[3]}))
    assert two.shape == (5, one.shape[3])


def test_sizes_are_of_one_test_case():
    sizes, seen = Sizes({"c": st.sampled_from([2, 7])}), set()
    pair = arrays(Float[Array, "n c"], sizes=sizes), arrays(Float[Array, "c n"], sizes=sizes)

    @given(*pair)
    def check(one, other):
        assert one.shape == other.shape[::-1]
        seen.add(one.shape)

    check()
    assert len(seen) > 4 and {c for _, c in seen} == {2, 7}


def test_without_sizes_names_are_of_one_array():
    pairs = st.tuples(arrays(Float[Array, "n"]), arrays(Float[Array, "n"]))
    find(pairs, lambda pair: pair[0].shape != pair[1].shape)


@pytest.mark.parametrize("lengths", [{"n": -1}, {"n": 2.0}, {"n": True}, {"n": (1, -1)}])
def test_lengths_are_checked(lengths):
    with pytest.raises(TypeError, match=r"`n` must be an integer that is not negative"):
        find(arrays(Float[Array, "n"], sizes=lengths), lambda x: True)


def test_a_leaf_axis_needs_a_structure():
    with pytest.raises(TypeError, match=r"`\?n` has a length for each leaf of a pytree"):
        find(arrays(Float[Array, "?n"]), lambda x: True)


def test_an_argument_in_an_axis_is_not_known_here():
    with pytest.raises(TypeError, match=r"axis `\{n\}` cannot be computed here: name 'n' is not"):
        find(arrays(Float[Array, "{n}"]), lambda x: True)


@pytest.mark.parametrize("word", [*WORDS, *VARIADIC, "?a", "#rows=3", "_*", "min(a,b)"])
def test_words_are_read_as_jaxtyping_reads_them(word):
    ours, (theirs,) = axes_of(word)[0], Float[Array, word].dims
    name = type(theirs).__name__
    assert ours.variadic == ("Variadic" in name) and ours.anonymous == ("Anonymous" in name)
    assert ours.broadcastable == getattr(theirs, "broadcastable", False)
    assert ours.of_leaf == getattr(theirs, "treepath", False)
    text = next((getattr(theirs, n) for n in ("name", "size", "elem") if hasattr(theirs, n)), None)
    assert text is None or ours.text == str(text)


# Other things than annotations of jaxtyping ---------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "bfloat16", "complex64"])
def test_specs(dtype):
    for spec in (ox.ArraySpec((2, 0, 1), dtype), jax.ShapeDtypeStruct((2, 0, 1), dtype)):
        array = find(arrays(spec), lambda x: True)
        assert ox.ArraySpec(array) == ox.ArraySpec(spec)


def test_any_array_and_numpy():
    find(arrays(jax.Array), lambda x: x.ndim == 2 and x.dtype == jnp.int32)
    array = find(arrays(Float[np.ndarray, "2"]), lambda x: True)
    assert type(array) is np.ndarray and array.dtype == "float32"


def test_keys():
    typed = jax.random.key(0)
    assert find(keys(), lambda key: True) == typed
    assert find(arrays(Key[Array, ""]), lambda key: True) == typed
    several = find(arrays(Key[Array, "3 n"]), lambda ks: bool(jax.random.key_data(ks).any()))
    assert several.shape == (3, 1) and several.dtype == typed.dtype
    assert find(arrays(ox.ArraySpec(several)), lambda ks: True).shape == (3, 1)

    @given(arrays(PRNGKeyArray))
    def check(key):
        assert isinstance(key, typing.get_args(PRNGKeyArray)[0])

    check()


def test_unions_and_scalars():
    either = Float[Array, "2"] | Int[Array, "3"]
    assert {find(arrays(either), lambda x, n=n: len(x) == n).dtype.name for n in (2, 3)} == {
        "float32",
        "int32",
    }
    assert find(arrays(Scalar), lambda x: True).shape == ()


@pytest.mark.parametrize("hint", [int, "Float", Float, list[Float[Array, "2"]], None])
def test_what_is_no_annotation_of_arrays_is_refused(hint):
    with pytest.raises(TypeError, match=r"arrays: .* is not an annotation of an array. Give"):
        arrays(hint)
    with pytest.raises(TypeError, match=r"array_specs: .* is not an annotation of an array"):
        array_specs(hint)


@given(st.data(), annotations)
def test_specs_are_those_of_arrays(data, hint):
    sizes = {"a": 2, "b": 3}
    spec = data.draw(array_specs(hint, sizes=sizes))
    with jaxtyped("context"):
        assert isinstance(jnp.zeros((2, 3)), Float[Array, "a b"])
        assert isinstance(jnp.zeros(spec.shape, spec.dtype), hint)


@given(st.data())
def test_from_type_knows_annotations(data):
    assert isinstance(data.draw(st.from_type(Float[Array, "2 n"])), Float[Array, "2 n"])


# Pytrees --------------------------------------------------------------------------------------


def test_pytrees():
    for kind in (list, tuple, dict, int):
        find(pytrees(st.just(0)), lambda tree, kind=kind: type(tree) is kind)
    find(pytrees(st.just(0)), lambda tree: jax.tree.structure(tree).num_leaves == 0)


@given(st.data())
def test_trees_of_one_structure(data):
    sizes = Sizes()
    hints = [
        PyTree[Float[Array, "?n m"], "T"],
        PyTree[Float[Array, "?n"], "T"],
        PyTree[Int[Array, "m"], "T S"],
        PyTree[Int[Array, ""], "T ..."],
        PyTree[Int[Array, "m"]],
    ]
    # jaxtyping wants "S" to have been seen.
    hints.insert(0, PyTree[Any, "S"])
    drawn = [data.draw(values(hint, sizes=sizes)) for hint in hints]
    with jaxtyped("context"):
        for hint, tree in zip(hints, drawn, strict=True):
            assert isinstance(tree, hint)


# Shrinking ------------------------------------------------------------------------------------


def test_arrays_shrink_to_few_zeros():
    simplest = {"*batch n": (1,), "n m n+1": (1, 1, 2), "...": (), "#n _ 3": (1, 1, 3)}
    for shape, expected in simplest.items():
        array = find(arrays(Float[Array, shape]), lambda x: True)
        assert array.shape == expected and not array.any()
    array = find(arrays(Float[Array, "n m"]), lambda x: bool((x > 1).any()))
    assert array.tolist() == [[2.0]]
