"""Options, marker and fixtures of the pytest plugin, in a user's project.

Each test runs pytest in a process of its own, on a folder with one file.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oryxstate._releases import TESTED
from oryxstate.testing import LAWS, jax_matrix

ROOT = Path(__file__).parents[2]

MODEL = """
import jax, jax.numpy as jnp
from jaxtyping import Array, Float
import oryxstate as ox
from oryxstate.testing import laws

class Scale(ox.Module):
    factor: Float[Array, " n"] = ox.param()
    count: Float[Array, ""] = ox.state()

    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        self.assign(count=self.count + 1)
        return self.factor * x
"""


def run(folder: Path, text: str, *options: str, plugin: bool = True) -> subprocess.CompletedProcess:
    """Pytest on one file."""
    (folder / "test_model.py").write_text(MODEL + text)
    given = ["-p", "oryxstate.testing._plugin"] if plugin else []
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *given, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path},
    )


def outcomes(result: subprocess.CompletedProcess) -> dict[str, int]:
    """How many tests passed, failed, were skipped."""
    return {
        word: int(n)
        for n, word in re.findall(r"(\d+) (passed|failed|skipped|xfailed)", result.stdout)
    }


def test_one_line_makes_a_test_of_each_law(tmp_path):
    text = "@laws(Scale)\ndef test_scale(case):\n    assert case.module.factor.ndim == 1\n"
    result = run(tmp_path, text, "--ox-max-examples", "1")
    assert outcomes(result) == {"passed": len(LAWS) + 1}, result.stdout
    for law in (*LAWS, "body"):
        assert f"test_scale[{law}] PASSED" in result.stdout


def test_laws_are_chosen(tmp_path):
    text = "@laws(Scale, skip=['no_retrace'])\ndef test_scale(case):\n    pass\n"
    marked = run(tmp_path, text, "--ox-max-examples=1", "-m", "ox_law(name='purity')")
    assert outcomes(marked) == {"passed": 1}
    named = run(
        tmp_path, text, "--ox-max-examples=1", "-k", "purity or no_retrace", "--strict-markers"
    )
    assert outcomes(named) == {"passed": 1}
    assert "ox_law(name)" in run(tmp_path, text, "--markers").stdout


def test_several_processes_share_the_tests(tmp_path):
    text = "@laws(Scale)\ndef test_scale(case):\n    pass\n"
    options = "-p", "xdist", "-n", "2", "--ox-max-examples=1", "--ox-strict=promotion"
    result = run(tmp_path, text, *options)
    assert outcomes(result) == {"passed": len(LAWS) + 1}
    assert f"1 model, {len(LAWS)} laws run on them." in result.stdout


def test_a_broken_law_names_it_and_how_to_see_it_again(tmp_path):
    text = """
class Root(Scale):
    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.sqrt(jnp.abs(x)) * self.factor

@laws(Root, only=["finite_gradient", "jit_is_eager"])
def test_root(case):
    assert (case.module.factor < 1).all(), "by the body"
"""
    result = run(tmp_path, text)
    assert outcomes(result) == {"passed": 1, "failed": 2}
    assert "test_root[finite_gradient] FAILED" in result.stdout
    assert "`finite_gradient` does not hold for Root." in result.stdout
    assert "Reproduce: check_module(Root(factor=jnp.array([0.0], 'float32')" in result.stdout
    assert "by the body" in result.stdout


def test_a_law_that_says_nothing_is_skipped_with_the_reason(tmp_path):
    text = """
class Count(ox.Module):
    count: jax.Array = ox.state()
    def call(self, x: Float[Array, ""]):
        return x > 0

@laws(Count(jnp.array(0)), only=["finite_gradient", "runs"])
def test_count(case):
    pass
"""
    result = run(tmp_path, text, "-rs", "--ox-max-examples=2")
    assert outcomes(result) == {"passed": 2, "skipped": 1}
    assert "not applicable, " in result.stdout


OPTIONS = {
    "promotion": ("jnp.ones(1, 'int32') + jnp.ones(1, 'float32')", "ox-strict=promotion"),
    "rank": ("jnp.ones((2, 1)) + jnp.ones(1)", "ox-strict=rank"),
    "nans": ("jnp.log(-jnp.ones(()))", "ox-strict=nans"),
    "annotations": ("Scale(jnp.ones((1, 1)), jnp.zeros(()))", "ox-check-annotations"),
    "leaks": ("[leaked := [], jax.jit(lambda x: leaked.append(x))(1.0)]", "ox-check-leaks"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_strictness(name, tmp_path):
    statement, option = OPTIONS[name]
    text = f"def test_it():\n    {statement}\n"
    assert outcomes(run(tmp_path, text)) == {"passed": 1}
    assert outcomes(run(tmp_path, text, f"--{option}")) == {"failed": 1}


def test_fixtures(tmp_path):
    text = """
def test_key(ox_key, ox_tolerance):
    assert ox_key.shape == () and jnp.issubdtype(ox_key.dtype, jax.dtypes.prng_key)
    assert 0 < ox_tolerance(jnp.ones(1))["rtol"] < ox_tolerance("bfloat16")["atol"]
    print("drew", jax.random.bits(ox_key))

def test_other(ox_key):
    print("drew", jax.random.bits(ox_key))
"""
    first, again = (run(tmp_path, text, "-s").stdout for _ in range(2))
    drawn = re.findall(r"drew \d+", first)
    assert len(set(drawn)) == 2 and drawn == re.findall(r"drew \d+", again)


def test_the_matrix(tmp_path):
    result = run(tmp_path, "", "--ox-jax-matrix")
    assert json.loads(result.stdout) == jax_matrix()


def test_the_matrix_is_of_tested_releases():
    assert {job["jax"] for job in jax_matrix()} <= set(TESTED)


def test_wrong_options_and_functions(tmp_path):
    assert (
        "--ox-max-examples must be positive, got 0"
        in run(tmp_path, "", "--ox-max-examples=0").stderr
    )
    refused = run(tmp_path, "", "--ox-seed=first")
    assert "--ox-seed is a number or `random`, got 'first'" in refused.stderr + refused.stdout
    result = run(tmp_path, "@laws(Scale)\ndef test_scale():\n    pass\n")
    assert "`test_scale` must take the case as its first argument" in result.stdout
    result = run(tmp_path, "@laws(Scale, skip=['purty'])\ndef test_scale(case):\n    pass\n")
    assert "there is no law 'purty'. Did you mean 'purity'?" in result.stdout
    assert outcomes(
        run(tmp_path, "@laws(Scale, only=['runs'])\ndef test_scale(case): pass\n", plugin=False)
    ) == {"passed": 2}, "without the plugin it is a marker that pytest does not know, and warns of"


def test_jax_is_imported_by_nobody_before_a_conftest(tmp_path):
    (tmp_path / "conftest.py").write_text("import sys\nassert 'jax' not in sys.modules\n")
    code = (
        "import runpy, sys; sys.modules['pytest_oryxstate'] = m = type(sys)('m');"
        f"m.__dict__.update(runpy.run_path({str(ROOT / 'oryxstate/testing/_plugin.py')!r}));"
        "import pytest; sys.exit(pytest.main(['-q', '-p', 'pytest_oryxstate', '--co']))"
    )
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert result.returncode == 0 and "1 test collected" in result.stdout, result.stderr
