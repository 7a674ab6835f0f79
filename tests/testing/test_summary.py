"""The summary of a run: what the plugin prints and writes, and when it lets a run fail."""

from __future__ import annotations

import importlib.util
import json

import jax
import pytest

import oryxstate as ox
from oryxstate.testing import LawError
from oryxstate.testing._summary import as_json, as_markdown, as_text, collected
from oryxstate.testing._tally import Tally, _without
from oryxstate.testing._verdicts import EXPECTED, FAILS, HOLDS, NOT_APPLICABLE

pytest_plugins = ["pytester"]
IN_SOURCE = "oryxstate.testing._plugin"  # in an installed package it has another name
PLUGIN = IN_SOURCE if importlib.util.find_spec(IN_SOURCE) else "pytest_oryxstate"

NET = """
import equinox as eqx, jax, jax.numpy as jnp, pytest
from oryxstate.testing import laws

class Root(eqx.Module):
    scale: jax.Array
    def __call__(self, x):
        return self.scale * jnp.sqrt(x)

FEW = ["runs", "finite_gradient", "call_is_part"]
root = Root(jnp.ones(3))
"""
KNOWN = """
@laws(root, (jnp.zeros(3),), only=FEW, expected_failures={"finite_gradient": "a root at 0"})
def test_root(case):
    assert case.module is root
"""
HOLDING = """
@laws(root, (jnp.ones(3),), only=FEW, expected_failures={"finite_gradient": "a root at 0"})
def test_root(case): pass

@laws(root, (jnp.zeros(3),), only=["finite_gradient"])
def test_size(case): pass
"""
EMPTY = """
@laws(root, (jnp.zeros(3),), only=["call_is_part"])
def test_empty(case): pass
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs pytest on one file, in this process."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the package may be installed

    def runs(text, *options):
        pytester.makepyfile(test_model=text)
        given = "-p", PLUGIN, "-p", "no:cacheprovider", "--ox-max-examples=1"
        return pytester.runpytest_inprocess(*given, *options)

    return runs


def outcomes(result):
    return {
        word: n
        for word, n in result.parseoutcomes().items()
        if word not in ("deselected", "warnings")
    }


def summary(result):
    """The lines of the summary."""
    titles = [i for i, line in enumerate(result.outlines) if " laws of models " in line]
    following = result.outlines[titles[0] + 1 :]
    return [line for line in following if line.startswith(("test_", "  ", "1 model", "FAILED"))]


ROOT = "test_model.py::test_root"


def test_a_run_says_what_ran(run, tmp_path):
    given = [f"--ox-report={tmp_path}/out/laws.{kind}" for kind in ("json", "md")]
    result = run(NET + KNOWN, *given, "--ox-min-laws=2")
    assert outcomes(result) == {"passed": 2, "skipped": 1, "xfailed": 1}
    assert result.ret == 0
    assert summary(result) == [
        f"{ROOT}: Root, Equinox module",
        "  1 hold, 1 fail as expected, 1 not applicable",
        "  finite_gradient: fails as expected, a root at 0",
        "  call_is_part: not applicable, it has no `update` beside its call",
        "1 model, 2 laws run on them.",
    ]
    data = json.loads((tmp_path / "out/laws.json").read_text())
    assert data["laws"] == "2026.11" and data["jax"] == jax.__version__
    assert data["oryxstate"] == ox.__version__  # of the files that run, not of what is installed
    assert [model["hold"] for model in data["models"]] == [["runs"]]
    table = (tmp_path / "out/laws.md").read_text()
    assert f"| `{ROOT}` | Root | Equinox module | 1 of 3 |  | `finite_gradient` |" in table


def test_a_known_failure_that_holds_fails(run):
    result = run(NET + HOLDING)
    assert outcomes(result) == {"passed": 3, "skipped": 1, "failed": 2}
    assert "`finite_gradient` holds for Root, but `expected_failures` says" in str(result.stdout)
    lines = summary(result)
    assert "  finite_gradient: holds, but is expected to fail" in lines
    (found,) = [line for line in lines if line.startswith("  finite_gradient: does not hold: ")]
    assert "is not finite: [" in found


def test_a_model_on_which_too_few_laws_ran_fails_the_run(run):
    result = run(NET + EMPTY + KNOWN, "--ox-min-laws=3")
    assert result.ret == 1 and "failed" not in outcomes(result)
    assert summary(result)[-2:] == [
        "FAILED test_model.py::test_empty: no law ran on Root, and --ox-min-laws wants 3.",
        f"FAILED {ROOT}: only 2 laws ran on Root, and --ox-min-laws wants 3.",
    ]


def test_no_law_is_too_few(run):
    result = run(NET + EMPTY)
    assert summary(result)[-1] == "FAILED test_model.py::test_empty: no law ran on Root."
    assert result.ret == 1


def test_a_run_of_some_laws_is_not_judged(run):
    result = run(NET + KNOWN, "--ox-min-laws=3", "-k", "call_is_part")
    assert result.ret == 0
    assert "  0 hold, 1 not applicable, 2 left out of this run" in summary(result)


def test_the_paths_of_reports(run, tmp_path):
    result = run("def test_it(): pass\n", "--ox-report=laws.txt")
    result.stderr.fnmatch_lines(["*--ox-report writes a .json or .md file, got laws.txt."])
    run("def test_it(): pass\n", f"--ox-report={tmp_path}/laws.json", "--collect-only")
    assert not list(tmp_path.iterdir())
    run("def test_it(): pass\n", f"--ox-report={tmp_path}/laws.json")
    assert json.loads((tmp_path / "laws.json").read_text())["models"] == []


def record(law, outcome, reason="", *, test=ROOT, label="Equinox module"):
    return {
        "test": test,
        "model": "Net",
        "label": label,
        "law": law,
        "outcome": outcome,
        "reason": reason,
        "laws": 4,
    }


RECORDS = [
    record("purity", FAILS, "does not hold: `a|b` is 1"),
    record("purity", HOLDS, label=""),  # a second attempt counts
    record("runs", FAILS, "does not hold: `a|b` is 1"),
    record("rng_order", EXPECTED, "it draws"),
    record("call_is_part", NOT_APPLICABLE, "it has none"),
]


def test_the_same_as_text_json_and_markdown():
    models = collected(RECORDS)
    assert as_text(models) == [
        f"{ROOT}: Net, Equinox module",
        "  1 hold, 1 fail, 1 fail as expected, 1 not applicable",
        "  runs: does not hold: `a|b` is 1",
        "  rng_order: fails as expected, it draws",
        "  call_is_part: not applicable, it has none",
        "1 model, 3 laws run on them.",
    ]
    (data,) = json.loads(as_json(models))["models"]
    assert data == {
        "test": f"{ROOT}",
        "model": "Net",
        "kind": "Equinox module",
        "laws": 4,
        "hold": ["purity"],
        "fail": {"runs": "does not hold: `a|b` is 1"},
        "fail_as_expected": {"rng_order": "it draws"},
        "not_applicable": {"call_is_part": "it has none"},
    }
    head, table, reasons = as_markdown(models).split("\n\n")
    assert head.startswith("Laws of 2026.11, oryxstate ")
    assert table.splitlines()[2] == (
        f"| `{ROOT}` | Net | Equinox module | 1 of 4 | `runs` | `rng_order` | `call_is_part` |"
    )
    assert reasons == (
        f"- `{ROOT}`, `runs`: does not hold: `a|b` is 1\n"
        f"- `{ROOT}`, `rng_order`: fails as expected, it draws\n"
        f"- `{ROOT}`, `call_is_part`: not applicable, it has none\n"
    )


def test_one_law_is_not_several():
    others = [record(law, NOT_APPLICABLE, "so") for law in ("runs", "rng_order", "call_is_part")]
    (only,) = collected([record("purity", HOLDS), *others])
    assert only.fault(2) == f"{ROOT}: only 1 law ran on Net, and --ox-min-laws wants 2."


def test_models_are_kept_apart():
    other = [record("runs", HOLDS, test="test_b.py::test_net")]
    assert len(collected([*RECORDS, *other])) == 2


@pytest.mark.parametrize(
    ("given", "test"),
    [("test_net[runs]", "test_net"), ("test_net[2-runs-x]", "test_net[2-x]")],
)
def test_the_other_parameters_of_a_test_are_kept(given, test):
    assert _without(given, "runs") == test


def test_a_test_without_a_case_has_a_record():
    """As when no input can be drawn."""

    class Node:
        nodeid, user_properties = "a.py::test_net[runs]", []

    def fails(case):
        raise LawError("no")

    tally = Tally("runs", fails, type("Net", (), {}), {})
    tally.record(Node, 3, failed=True)
    assert Node.user_properties.pop()[1]["reason"] == "no case could be drawn"
    with pytest.raises(LawError):
        tally.run(None)  # type: ignore[arg-type]
    tally.record(Node, 3, failed=True)
    ((_, found),) = Node.user_properties
    assert (found["test"], found["model"], found["outcome"]) == ("a.py::test_net", "Net", FAILS)
    assert found["reason"] == "does not hold: no"
