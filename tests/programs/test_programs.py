"""Each state update happens exactly once, whatever transformations stand around it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from programs import check
from programs.grammar import programs

pytestmark = pytest.mark.filterwarnings("ignore:Some donated buffers were not usable:UserWarning")


@pytest.mark.parametrize("outer", check.OUTER)
@settings(max_examples=84)  # times six, on each JAX that `nox -s tests` takes
@given(node=programs)
def test_programs(outer, node):
    check.OUTER[outer](node)
