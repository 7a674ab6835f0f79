"""Rules from paths and layouts to others: what they do, their inverses, and their errors."""

import numpy as np
import pytest

from oryxstate import mapping
from oryxstate.mapping import (
    Add,
    Drop,
    Flip,
    Merge,
    Rename,
    Reshape,
    Split,
    Stack,
    Sum,
    Transpose,
    Unstack,
)


def arrays():
    draw = np.random.default_rng(0)
    return {
        "body.block_0.w": draw.normal(size=(2, 3)),
        "body.block_1.w": draw.normal(size=(2, 3)),
        "body.block_10.b": draw.normal(size=4),
        "q": draw.normal(size=(2, 3)),
        "kv": draw.normal(size=(4, 3)),
    }


RULES = {
    "Rename": [Rename("body.**", "encoder.**")],
    "Transpose": [Transpose("**.w", (1, 0)), Transpose("kv")],
    "Flip": [Flip("q", (0, -1))],
    "Reshape": [Reshape("q", (-1, 3), (3, -1, 1))],
    "Stack": [Stack("body.block_#.w", "blocks.w", axis=1)],
    "Unstack": [Unstack("kv", "kv[#]")],
    "Merge": [Merge(("q", "kv"), "qkv", sizes=(2, 4))],
    "Split": [Split("kv", ("k", "v"))],
    "Split into unequal parts": [Split("kv", ("k", "v"), sizes=(1, 3))],
    "Add": [Add("zeros", np.zeros(2))],
    "all together": [
        Split("kv", ("k", "v")),
        Transpose("*", (1, 0)),
        Stack("body.block_#.w", "w"),
        Rename("body.*.b", "*.bias"),
    ],
}


@pytest.mark.parametrize("name", RULES)
def test_the_inverse_leads_back(name):
    there = mapping.convert(arrays(), RULES[name])
    assert list(there) != list(arrays()) or any(
        there[k].shape != v.shape or (there[k] != v).any() for k, v in arrays().items()
    )
    back = mapping.convert(there, mapping.inverse(RULES[name]))
    assert set(back) == set(arrays())
    for path, value in arrays().items():
        np.testing.assert_array_equal(back[path], value)


def test_sum_and_its_inverse_keep_the_sum():
    rule = Sum(("a", "b"), "c")
    total = mapping.convert({"a": np.ones(2), "b": np.full(2, 3.0)}, [rule])
    np.testing.assert_array_equal(total["c"], [4, 4])
    shared = mapping.convert(total, [rule.inverse()])
    np.testing.assert_array_equal(shared["a"], [4, 4])
    np.testing.assert_array_equal(shared["b"], [0, 0])


def test_numbers_are_in_numeric_order():
    named = {f"layer{i}": np.full(1, i) for i in (10, 9, 2, 1, 0, 8, 7, 3, 4, 6, 5)}
    stacked = mapping.convert(named, [Stack("layer#", "layers")])["layers"]
    np.testing.assert_array_equal(stacked[:, 0], range(11))


def test_drop_takes_what_is_there():
    assert mapping.convert({"a": 1, "b.c": 2}, [Drop("b.**"), Drop("none")]) == {"a": 1}


@pytest.mark.parametrize(
    "rule, text",
    [
        (Rename("none.**", "some.**"), r"Rename\(.* matches no path: .* There are 5: body.block_0"),
        (Rename("body.*.w", "q.*"), None),
        (Rename("q", "kv"), "gives two arrays the path 'kv'"),
        (Transpose("none"), "matches no path"),
        (Transpose("q", (0, 0)), r"\(0, 0\) does not permute the axes of 'q', float64\[2,3\]"),
        (Transpose("q", (0, 1, 2)), r"'q' is float64\[2,3\], which has no axis 2"),
        (Transpose("q", (3, 0)), r"'q' is float64\[2,3\], which has no axis 3"),
        (
            Stack("body.block_#.w", "w", axis=3),
            r"for 'w' the stack of float64\[2,3\] has no axis 3",
        ),
        (Stack("body.block_#.w", "w", axis=-4), r"for 'w' the stack of .* has no axis -4"),
        (Merge(("q", "kv"), "qkv", sizes=(1, 5)), r"for 'qkv' the lengths are \(2, 4\), not the"),
        (Add("q", np.zeros(2)), r"already float64\[2,3\] at 'q'. Put mapping\.Drop\('q'\) before"),
        (Flip("q", (2,)), r"'q' is float64\[2,3\], which has no axis 2"),
        (Reshape("q", (3, 2), (6,)), r"which is not of the shape \(3, 2\)"),
        (Reshape("q", (2, 3), (4, -1)), r"which cannot have shape \(4, -1\)"),
        (Stack("body.block_#.b", "b"), r"for 'b' the numbers \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\] are"),
        (Stack("none#", "none"), "matches no path"),
        (Unstack("none", "none#"), "matches no path"),
        (Merge(("q", "none"), "all"), "for 'all' there is no 'none'"),
        (Merge(("none", "nothing"), "all"), "matches no path"),
        (Merge(("q", "body.block_10.b"), "all"), r"for 'all' shapes differ: \[\(2, 3\), \(4,\)\]"),
        (Sum(("q", "kv"), "all"), r"for 'all' shapes differ"),
        (Sum(("q", "kv"), "all").inverse(), "matches no path"),
        (Split("q", ("a", "b", "c")), "whose axis 0 does not split into 3 equal parts"),
        (Split("q", ("a", "b"), sizes=(1, 2)), r"does not split into \(1, 2\)"),
        (Split("none", ("a", "b")), "matches no path"),
    ],
)
def test_a_rule_that_does_not_apply_says_why(rule, text):
    if text is None:
        assert set(mapping.convert(arrays(), [rule])) > {"q.block_0", "q.block_1"}
    else:
        with pytest.raises(ValueError, match=text):
            mapping.convert(arrays(), [rule])


def test_stacked_arrays_are_alike():
    two = {"a0": np.ones(2), "a1": np.ones(3)}
    with pytest.raises(ValueError, match=r"for 'a' shapes differ: \[\(2,\), \(3,\)\]"):
        mapping.convert(two, [Stack("a#", "a")])
    two["a1"] = np.ones(2, int)
    with pytest.raises(ValueError, match="arrays of one dtype are wanted"):
        mapping.convert(two, [Stack("a#", "a")])


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Rename("a.*", "b"), "must have the same wildcards in the same order"),
        (lambda: Stack("a.*", "b.*"), "one pattern has one `#`"),
        (lambda: Stack("a#.*", "b"), "must have the same wildcards beside `#`"),
        (lambda: Merge(("a.*", "b"), "c.*"), "Merge: 'b' and 'c.*' must"),
        (lambda: Split("a.*", ("b",)), "must have the same wildcards"),
        (lambda: Sum(("a.*",), "b"), "must have the same wildcards"),
        (lambda: Sum(("a.*",), "b.*").inverse() and mapping.Share("a", ("*",)), "same wildcards"),
    ],
)
def test_patterns_that_do_not_fit(make, text):
    with pytest.raises(ValueError, match=text.replace("*", r"\*")):
        make()


def test_a_mapping_is_made_of_rules():
    with pytest.raises(TypeError, match=r"a mapping is a sequence of rules .* 'a' is in it"):
        mapping.convert({}, ["a"])
