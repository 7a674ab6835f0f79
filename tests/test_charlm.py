"""The small transformer: it learns, and generates the same with its cache as without (S13)."""

import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture(scope="module")
def charlm():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield runpy.run_path(str(EXAMPLES / "charlm.py"))


def test_the_text_is_the_docstrings_of_a_folder(charlm, tmp_path):
    (tmp_path / "b.py").write_text('"""Second."""\n\n\nclass C:\n    """Third\u2014."""\n')
    (tmp_path / "a.py").write_text('"""First."""\nx = "no docstring"\n')
    assert charlm["docstrings"](tmp_path) == "First.\n\nSecond.\n\nThird."
    text = "First.\n"
    assert charlm["decode"](charlm["encode"](text)) == text


def test_it_learns_and_writes_the_same_with_and_without_its_cache(charlm, capsys):
    text = charlm["encode"]("the quick brown fox jumps over the lazy dog. " * 40)
    model, losses = charlm["train"](text, 12, 0)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    prompt, key = text[:5], jax.random.key(1)
    for temperature in (0.7, 1.0):
        with_cache = charlm["write"](model, prompt, 20, key, temperature)
        without = charlm["write_without_cache"](model, prompt, 20, key, temperature)
        assert with_cache[0].tolist() == without[0].tolist()
        np.testing.assert_allclose(with_cache[1], without[1], atol=2e-5)
    figures = charlm["report"](model, 20, 0)
    assert figures["difference"] < 1e-5 and figures["ratio"] > 0
    assert "times as fast as without the cache" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["--steps", "0"], ["--count", "-1"], ["--seed", "-2"]])
def test_bad_arguments_give_one_line(charlm, monkeypatch, capsys, args):
    monkeypatch.setattr(sys, "argv", ["charlm.py", *args])
    with pytest.raises(SystemExit) as end:
        charlm["main"]()
    assert end.value.code == 2 and "must" in capsys.readouterr().err
