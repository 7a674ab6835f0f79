"""Annotations are read as Python 3.14 gives them: values, or forward references (PEP 649).

`Lazy` stands for the `annotationlib` of Python 3.14, so that this runs on each Python.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from pathlib import Path

import jax.numpy as jnp
import pytest

import oryxstate as ox
from oryxstate import _signatures
from oryxstate._annotations import _hints

PACKAGE = Path(ox.__file__).parent


class Lazy:
    """Evaluates an annotation when it is asked for, or gives a forward reference to it."""

    Format = types.SimpleNamespace(FORWARDREF="forward references")

    @staticmethod
    def get_annotations(annotated, *, format):
        assert format == "forward references"
        found = inspect.get_annotations(annotated)
        return {name: Lazy.evaluated(hint) for name, hint in found.items()}

    @staticmethod
    def evaluated(hint):
        try:
            return eval(hint, globals()) if isinstance(hint, str) else hint
        except NameError:
            return typing.ForwardRef(hint)


@pytest.fixture
def lazy(monkeypatch):
    monkeypatch.setattr(_signatures, "_annotationlib", Lazy)


def test_a_field_may_name_what_is_defined_later(lazy, monkeypatch):
    class Tree(ox.Module):
        scale: float = ox.static()
        child: Later | None = None

        def call(self, x: Later) -> Later:
            return x

    hints = _hints.of_fields(Tree)
    assert hints["scale"] is float
    assert hints["child"] == _hints.Unresolved(
        "Later | None", "NameError: name 'Later' is not defined"
    )
    assert _hints.of_function(Tree.call)["x"].text == "Later"
    monkeypatch.setitem(globals(), "Later", Tree)
    assert _hints.of_fields(Tree)["child"] == Tree | None
    assert _hints.of_function(Tree.call) == {"x": Tree, "return": Tree}


def test_a_module_whose_annotations_are_lazy_works(lazy):
    class Doubled(ox.Module):
        count: Undefined = ox.state()

        def call(self, x: Undefined, *, twice: Undefined = True):
            self.assign(count=self.count + 1)
            return 2 * x

    y, new = ox.call_and_update(Doubled(jnp.array(0)), jnp.array(2.0), twice=False)
    assert (y, new.count) == (4.0, 1)


def test_signatures_are_asked_for_with_forward_references(lazy, monkeypatch):
    asked = []

    def signature(function, **options):
        asked.append(options)
        return original(function)

    original = inspect.signature
    monkeypatch.setattr(_signatures.inspect, "signature", signature)
    assert list(_signatures.signature_of(lambda x: x).parameters) == ["x"]
    assert asked == [{"annotation_format": "forward references"}]


def test_without_it_python_is_asked():
    def function(x: Later) -> int:
        return x

    assert _signatures.annotations_of(function) == {"x": "Later", "return": "int"}
    assert str(_signatures.signature_of(function)) == "(x: 'Later') -> 'int'"


# Of functions that are not a user's.
OWN = {"_signatures", "_surface", "_precision", "_classes"}


def test_what_users_write_is_read_in_one_place():
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in OWN:
            used = {ast.unparse(n) for n in ast.walk(ast.parse(path.read_text()))}
            assert not used & {"inspect.signature", "inspect.get_annotations"}, path
