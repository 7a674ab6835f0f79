"""The demo, run for one epoch against the README; `nox -s demo` trains to the end."""

import errno
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import oryxstate

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
DEMO = EXAMPLES / "digits.py"


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)  # not the eight devices of the other tests
    env["PYTHONPATH"] = str(Path(oryxstate.__file__).parents[1])  # the package that is tested here
    command = [sys.executable, str(DEMO), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with one seed: their folders and what they printed."""
    folder = tmp_path_factory.mktemp("demo")
    outs = [folder / "one" / "nested", folder / "two"]  # the first is made with its parent
    done = [run("--epochs", 1, "--seed", 3, "--out", out, cwd=folder) for out in outs]
    for process in done:
        assert process.returncode == 0, process.stderr
    return outs, [process.stdout for process in done]


def figures_of(folder: Path) -> dict:
    return json.loads((folder / "figures.json").read_text())


def test_the_same_seed_gives_the_same_figures(runs):
    one, two = map(figures_of, runs[0])
    assert one.pop("run").keys() == two.pop("run").keys() == {"seconds", "jax", "python"}
    assert one == two


def test_the_figures_are_sound(runs):
    figures = figures_of(runs[0][0])
    assert (figures["epochs"], figures["seed"]) == (1, 3)
    # Each training step counted once, and no evaluation: 1,437 images in batches of 64.
    assert figures["steps"] == figures["batches_counted_by_the_model"] == 22
    curves = figures["curves"]
    assert {name: len(values) for name, values in curves.items()} == {
        "train_loss": 1,
        "train_accuracy": 1,
        "test_loss": 1,
        "test_accuracy": 1,
    }
    assert 0 < curves["test_loss"][0] < 2.3  # the cross-entropy of guessing
    assert 0.5 < figures["test_accuracy"] == curves["test_accuracy"][0] <= 1
    assert 0 < curves["train_accuracy"][0] <= 1


def test_the_picture_can_be_read(runs):
    from matplotlib import image

    pixels = image.imread(runs[0][0] / "curves.png")
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 800
    assert pixels[..., :3].std() > 0.05  # something is drawn


def test_the_output_names_variables_accuracy_and_files(runs):
    (folder, _), (text, _) = runs
    for row in ("layers[2].mean", "layers[0].batches", "layers[15].kernel", "94,186"):
        assert row in text
    assert "epoch   1/1" in text  # a line in place of the bar, which needs a terminal
    accuracy = figures_of(folder)["test_accuracy"]
    assert f"Test accuracy {accuracy:.2%} ({round(accuracy * 360)} of 360) after 1 epoch" in text
    assert str(folder / "curves.png") in text.replace("\n", "")
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epochs", "0"], "argument --epochs: must be from 1 to 10000, not 0"),
        (["--epochs", "-3"], "argument --epochs: must be from 1 to 10000, not -3"),
        (["--epochs", "many"], "argument --epochs: 'many' is not a whole number"),
        (["--epochs", "1.5"], "argument --epochs: '1.5' is not a whole number"),
        (["--seed", "-1"], "argument --seed: must be from 0 to 4294967295, not -1"),
        (["--out", "file"], "argument --out: 'file' is not a folder"),
        (["--out", "file/below"], "argument --out: cannot write to 'file/below': Not a directory"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
    ],
)
def test_bad_arguments_give_one_line(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    monkeypatch.setattr(sys, "argv", ["digits.py", *args])
    parse = runpy.run_path(str(EXAMPLES / "_digits_arguments.py"))["parse"]
    with pytest.raises(SystemExit) as end:
        parse("")
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"digits.py: error: {message} (see --help)\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bad_argument_ends_the_program(tmp_path):
    process = run("--epochs", 0, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1


def test_a_folder_that_is_not_writable_gives_one_line(tmp_path, monkeypatch, capsys):
    """Root may write everywhere, so the answer of the system is given here."""

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["digits.py", "--out", "locked"])
    parse = runpy.run_path(str(EXAMPLES / "_digits_arguments.py"))["parse"]
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SystemExit) as end:
        parse("")
    assert end.value.code == 2
    text = "argument --out: cannot write to 'locked': Permission denied (see --help)"
    assert capsys.readouterr() == ("", f"digits.py: error: {text}\n")


def test_help_names_the_options(tmp_path):
    process = run("--help", cwd=tmp_path)
    assert process.returncode == 0
    for option in ("--epochs", "--seed", "--out"):
        assert option in process.stdout
