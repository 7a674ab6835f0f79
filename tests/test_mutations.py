"""Mutations, each of which still finds what it breaks; `nox -s mutants` runs them, in minutes."""

from pathlib import Path

import pytest
from mutations import MUTATIONS

import oryxstate

ROOT = Path(oryxstate.__file__).parent / "_effects"
TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.what)
def test_a_mutation_applies_once(mutation):
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1 and mutation.new != mutation.old
    for argument in mutation.tests:
        assert not argument.endswith(".py") or (TESTS / argument).exists()


def test_each_mutation_has_a_name_of_its_own():
    assert len({m.what for m in MUTATIONS}) == len(MUTATIONS) >= 30
