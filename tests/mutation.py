"""A mutation: one passage of a file, broken on purpose to see that tests notice."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One passage broken on purpose, and some tests that must fail then.

    Attributes:
        what: what is broken, in words.
        file: its path from `oryxstate/_effects`.
        old: the passage that is replaced; the file holds it once.
        new: what stands there instead.
        tests: arguments of pytest.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


TABLE = "tests/test_transformations.py"
ALONE = "tests/test_transformations_alone.py"
ERRORS = "tests/test_effects_errors.py"
INSIDE = "tests/test_gradients_inside.py"
NESTED = "tests/test_gradients_nested.py"
ACROSS = "tests/test_gradients_across_calls.py"
MEMBERS = "tests/test_gradients_of_members.py"
STACKS = "tests/test_stacks.py"
ROOTS = "tests/test_root_transformed.py"
REFUSED = "tests/test_root_refused.py"
REDUCE = "tests/test_reduce.py"
SUMS = "tests/test_reduce_sum.py"
PLACES = "tests/test_places.py"
RULES = "tests/test_custom_rules.py"
EQUATIONS = "tests/test_equations.py"
CACHING = "tests/test_caching.py"
LEAKS = "tests/test_leaks.py"
LIVE = "tests/test_live.py"
FUNCTIONS = "tests/test_functions.py", "tests/test_functions_nested.py"
DECLARED = "tests/test_functions_inside.py"
