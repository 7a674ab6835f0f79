"""The package is in layers, and only `oryxstate/_jax.py` knows JAX's internals."""

import ast
import doctest
import importlib
import pathlib
import subprocess
import sys

import pytest

import oryxstate

ROOT = pathlib.Path(oryxstate.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(("oryxstate", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in FILES
}
# From the bottom; a file imports only from its own layer and those below.
LAYERS = [
    ("_surface", "_releases", "_signatures", "_version"),
    ("_jax",),
    ("_jaxprs", "_tangents", "_interception"),
    ("_explicit", "_hi_primitives", "_shard_maps", "_subfuns"),
    ("_errors", "_example_keys", "_extras", "_lazy", "_tree", "_stack"),
    ("_effects",),
    ("_module", "_select"),
    ("select",),
    ("_annotations", "_api", "_batched", "_function_runs"),
    ("_functions", "_containers", "_grad", "_batch", "_step", "mapping"),
    ("_capture",),
    ("_selftest", "nn", "checkpoint", "sharding", "_look", "_weights"),
    ("testing", "__main__", "launch", "_launched"),
]
INTERNALS = ("jax.core", "jax.extend", "jax.interpreters", "jax._src")
# Parts of a layer that know none of their neighbours.
ALONE = (
    "_annotations",
    "_batch",
    "_batched",
    "_errors",
    "_stack",
    "_functions",
    "_containers",
    "_grad",
    "_step",
    "checkpoint",
    "mapping",
    "sharding",
    "_weights",
)


def imports(path):
    """Full names of what a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def attributes(path):
    """Dotted names that a file uses, such as `jax.core.Trace`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def part(name):
    """`_module` for `oryxstate._module._base`."""
    return name.split(".")[1]


def layer(name):
    return next(i for i, names in enumerate(LAYERS) if part(name) in names)


def inside(name):
    return name.startswith("oryxstate.") and part(name) in {p for names in LAYERS for p in names}


def test_every_file_stands_in_a_layer():
    assert len(MODULES) > 20
    assert [name for name in MODULES if name != "oryxstate" and not inside(name)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "oryxstate"])
def test_imports_go_downward(name):
    for imported in imports(MODULES[name]):
        if imported.split(".")[0] != "oryxstate":
            continue
        assert inside(imported), f"{name} imports the public face, {imported}"
        assert layer(imported) <= layer(name), f"{name} imports {imported}, which is above it"


@pytest.mark.parametrize("name", [name for name in MODULES if part(f"{name}.x") in ALONE])
def test_neighbours_do_not_know_each_other(name):
    known = [i for i in imports(MODULES[name]) if inside(i) and layer(i) == layer(name)]
    assert [i for i in known if part(i) != part(name)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "oryxstate._jax"])
def test_only_one_file_knows_the_internals_of_jax(name):
    used = [*imports(MODULES[name]), *attributes(MODULES[name])]
    assert [u for u in used if f"{u}.".startswith(tuple(f"{i}." for i in INTERNALS))] == []


STRATEGIES = ("_arrays", "_bound", "_dimensions", "_parameters", "_refused", "_values")


def test_strategies_of_annotations_know_no_modules():
    known, reached = [f"oryxstate.testing.{name}" for name in STRATEGIES], set()
    while known:
        name = known.pop()
        if name in reached or name not in MODULES:
            continue
        reached.add(name)
        for found in imports(MODULES[name]):
            known += [found] if found in MODULES else [found.rpartition(".")[0]]
    assert "oryxstate._tree" in reached
    named = {".".join(name.split(".")[1:2]) for name in reached - {"oryxstate"}}
    assert named & {"_module", "_effects", "_api", "nn", "_functions"} == set()


def test_the_check_of_internals_sees_them():
    used = [*imports(MODULES["oryxstate._jax"]), *attributes(MODULES["oryxstate._jax"])]
    assert any(u.startswith("jax._src") for u in used)


def test_imports_stand_at_the_top_of_files():
    for path in FILES:
        if path.name == "_plugin.py":  # of pytest, which says why; where the package is installed
            continue  # it stands elsewhere
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert inner == [], f"{path}: `{node.name}` imports"


EXTRAS = (
    "beartype",
    "optax",
    "hypothesis",
    "rich",
    "orbax",
    "safetensors",
    "treescope",
    "matplotlib",
    "pytest",
)


def test_importing_the_package_imports_no_extra():
    code = f"import sys, oryxstate; print([m for m in {EXTRAS} if m in sys.modules])"
    path = [str(ROOT.parent), *filter(None, sys.path)]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_public_names_exist_and_are_sorted():
    assert list(oryxstate.__all__) == sorted(oryxstate.__all__)
    # pytest puts names that are none into modules whose assertions it rewrites.
    public = {name for name in dir(oryxstate) if name.isidentifier() and name[0] != "_"}
    outside = {"testing", "launch"}  # attributes once somebody imports them
    assert public - outside == set(oryxstate.__all__)


@pytest.mark.parametrize("name", oryxstate.__all__)
def test_public_names_have_docstrings(name):
    value = getattr(oryxstate, name)
    assert value.__doc__ and len(value.__doc__.split()) > 4
    for attribute, member in vars(value).items() if isinstance(value, type) else ():
        if callable(member) and not attribute.startswith("_"):
            assert member.__doc__, f"{name}.{attribute} has no docstring"


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        for test in finder.find(importlib.import_module(name), name):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("test", list(examples()))
def test_examples_in_docstrings_run(test):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    result = runner.run(test, out=report.append)
    assert result.attempted > 0 and result.failed == 0, "".join(report)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_line_of_a_file_says_what_it_is_about(path):
    assert_says_what_it_is_about(path)


def test_so_does_that_of_each_file_beside_the_package():
    checkout = pathlib.Path(__file__).parents[1]
    files = [
        p for name in ("tests", "benchmarks", "docs") for p in checkout.glob(f"{name}/**/*.py")
    ]
    assert len(files) > 200
    for path in files:
        assert_says_what_it_is_about(path)


def assert_says_what_it_is_about(path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    assert first.endswith(".") and "?" not in first, f"{path} opens with {first!r}"
