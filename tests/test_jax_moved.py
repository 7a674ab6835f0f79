"""A JAX of the future, in which something has moved: the tests and the import name it."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from oryxstate import _surface

# Names --------------------------------------------------------------------------------------------

NAMES = [*_surface.PRIVATE, *_surface.PUBLIC]


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.name)
def test_each_name_that_is_moved_is_named_alone(row, monkeypatch):
    """Of a class, its methods are gone too; a method is gone from what it is inherited from."""
    owner, _, attribute = row.name.rpartition(".")
    found = _surface.resolve(owner)
    for holder in getattr(found, "__mro__", (found,)):
        if attribute in vars(holder):
            monkeypatch.delattr(holder, attribute)
    rows = [other for other in NAMES if _surface.broken_name(other)]
    assert rows == [row]


@pytest.mark.parametrize("name", _surface.PRIMITIVES)
def test_each_primitive_that_is_renamed_is_named_alone(name, monkeypatch):
    ad = _surface.resolve("jax.interpreters.ad.primitive_jvps")
    dce = _surface.resolve("jax.interpreters.partial_eval.dce_rules")
    (primitive, *_) = [p for p in (*ad, *dce) if p.name == name]
    monkeypatch.setattr(primitive, "name", "renamed")
    assert list(_surface.broken()) == [f"the primitive `{name}` is not there"]


MOVES = """
import importlib

def pytest_collection_finish(session):
    delattr(importlib.import_module({owner!r}), {attribute!r})
"""


@pytest.mark.parametrize(
    "name", ["jax.extend.core.jaxpr_as_fun", "jax.interpreters.mlir.lower_fun"]
)
def test_of_the_surface_tests_one_fails(name, tmp_path):
    owner, _, attribute = name.rpartition(".")
    (tmp_path / "moves.py").write_text(MOVES.format(owner=owner, attribute=attribute))
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "moves", str(here / "test_jax_surface.py")],
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, here.parent, here)))},
        capture_output=True,
        text=True,
    )
    assert re.findall(r"^FAILED \S*::(\S+)", done.stdout, re.MULTILINE) == [f"test_name[{name}]"]


# The import itself --------------------------------------------------------------------------------

IMPORT = """
import importlib.metadata, jax, warnings
jax.__version__, jax.__version_info__ = "0.99.0", (0, 99, 0)
importlib.metadata.version = lambda name: "1.2.3"
{breaks}
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    try:
        import oryxstate
    except ImportError as error:
        print(error)
print(*(w.message for w in found if "oryxstate" in str(w.message)))
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""


def in_a_new_process(breaks: str, folder: pathlib.Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(breaks=breaks)],
        env={**os.environ, "XDG_CACHE_HOME": str(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_import_of_a_future_jax(tmp_path):
    """It warns, starts no backend, and does so once."""
    warning, backend = in_a_new_process("", tmp_path)
    assert warning.startswith("oryxstate has not been tested with JAX 0.99.0")
    assert backend == "False"
    assert in_a_new_process("", tmp_path) == ["", "False"]


@pytest.mark.parametrize(
    "name", ["jax.extend.core.jaxpr_as_fun", "jax._src.pjit._pjit_call_impl_python"]
)
def test_the_import_names_what_has_moved(name, tmp_path):
    owner, _, attribute = name.rpartition(".")
    breaks = f"import jax.extend.core\nfrom jax._src import pjit\ndel {owner}.{attribute}"
    error, *_ = in_a_new_process(breaks, tmp_path)
    assert error.startswith("oryxstate does not work with JAX 0.99.0")
    assert f"`{name}` is not there" in error
