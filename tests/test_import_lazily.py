"""Names of the package that are imported when they are first used."""

import ast
import pickle
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox
from oryxstate import _lazy

SOURCE = ast.parse(Path(ox.__file__).read_text())

# As a program that uses only the core, and then gets a layer from elsewhere.
PROGRAM = """
import pickle, sys
import oryxstate as ox

def loaded():
    ours = "nn checkpoint mapping select _look _weights _selftest".split()
    lazy = ["equinox", "jaxtyping", "wadler_lindig", *(f"oryxstate.{name}" for name in ours)]
    return [name.removeprefix("oryxstate.") for name in lazy if name in sys.modules]

import jax, jax.numpy as jnp

class Sum(ox.Module):
    total: jax.Array = ox.state()
    inner: list
    def call(self, x):
        self.assign(total=self.total + x)
        return self.total

def loss(model, x):
    return ox.call_and_update(model, x)

model = Sum(jnp.zeros(()), [jnp.ones(2)])
ox.value_and_grad(loss, has_aux=True)(model, 1.0)
print(loaded(), {"nn", "weights", "call"} <= set(dir(ox)))
print(repr(model), loaded())
print(type(pickle.loads(bytes.fromhex(sys.argv[1]))).__name__, loaded())
from oryxstate import *
print(callable(weights), checkpoint.save.__name__, loaded())
"""


def test_a_program_imports_what_it_uses():
    layer = ox.init(ox.nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
    run = [sys.executable, "-c", PROGRAM, pickle.dumps(layer).hex()]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    core, shown, unpickled, everything = done.stdout.splitlines()
    assert core == "[] True"
    assert shown == "Sum(total=f32[], inner=[f32[2]]) ['wadler_lindig', '_look']"
    assert unpickled == "Dense ['jaxtyping', 'wadler_lindig', 'nn', 'mapping', '_look']"
    assert everything.startswith("True save ['equinox', ") and "'_selftest'" not in everything


def for_type_checkers() -> dict[str, tuple[str, ...]]:
    """The imports that only a type checker sees: modules, and names of each."""
    (block,) = [node for node in SOURCE.body if isinstance(node, ast.If)]
    found: dict[str, tuple[str, ...]] = {}
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        names = tuple(alias.name for alias in line.names)
        if line.module == "oryxstate":
            found.update({f"oryxstate.{name}": () for name in names})
        else:
            found[str(line.module)] = names
    return found


def test_type_checkers_see_the_same_names():
    (homes,) = [node for node in ast.walk(SOURCE) if isinstance(node, ast.Dict)]
    assert for_type_checkers() == ast.literal_eval(homes)


def test_a_name_that_is_nowhere():
    with pytest.raises(AttributeError, match=r"^module 'oryxstate' has no attribute 'nm'$") as e:
        ox.nm  # noqa: B018
    assert (e.value.name, e.value.obj) == ("nm", ox)  # from which Python suggests `nn`


def test_a_name_is_imported_once(monkeypatch):
    package = types.ModuleType("package")
    monkeypatch.setitem(sys.modules, "package", package)
    homes = {"json.decoder": (), "json": ("dumps", "loads")}
    package.__getattr__, package.__dir__ = _lazy.attributes("package", homes)
    assert {"decoder", "dumps", "loads", "__name__"} < set(dir(package))
    assert "json" not in dir(package)
    assert package.dumps([1]) == "[1]" and package.decoder.JSONDecoder
    assert {"dumps", "decoder"} < set(vars(package)) and "loads" not in vars(package)
