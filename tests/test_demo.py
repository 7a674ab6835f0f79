"""The demo, run for three epochs, killed and resumed; `nox -s demo` trains to the end."""

import errno
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
DEMO = EXAMPLES / "digits.py"


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def command(*args: object) -> list[str]:
    return [sys.executable, "-u", str(DEMO), *map(str, args)]


def environment() -> dict[str, str]:
    env = {**os.environ, "COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)  # not the eight devices of the other tests
    env["PYTHONPATH"] = str(Path(oryxstate.__file__).parents[1])  # the package that is tested here
    return env


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    options = {"cwd": cwd, "env": environment(), "timeout": 300, "text": True}
    return subprocess.run(command(*args), **PIPES, **options)


def stopped(number, line, *args, cwd):
    """Run until a line is printed; send a signal; the exit status and what was printed."""
    process = subprocess.Popen(command(*args), cwd=cwd, env=environment(), text=True, **PIPES)
    said = ""
    for text in process.stdout:
        said += text
        if text.startswith(line):
            process.send_signal(number)
            break
    rest, errors = process.communicate(timeout=300)
    return process.returncode, said + rest, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from the beginning to the end: its folder, and what it printed."""
    above = tmp_path_factory.mktemp("demo")
    out = above / "made" / "with its parent"
    process = run("--epochs", 3, "--seed", 3, "--out", out, cwd=above)
    assert process.returncode == 0, process.stderr
    return out, process.stdout


def test_a_run_that_is_interrupted_and_killed_ends_with_the_same_figures(whole, tmp_path):
    options = ["--epochs", 3, "--seed", 3, "--out", tmp_path / "out"]
    status, text, errors = stopped(signal.SIGINT, "epoch   1/3", *options, cwd=tmp_path)
    assert (status, errors) == (130, "")
    assert "--resume --out" in text.split("Stopped after ")[1]
    refused = run(*options, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith(
        "has a run that is not over. Go on with it, --resume, or give a new one another folder, "
        "--out\n"
    )
    options += ["--resume"]
    assert stopped(signal.SIGKILL, "epoch   2/3", *options, cwd=tmp_path)[0] == -signal.SIGKILL
    assert run(*options, cwd=tmp_path).returncode == 0
    one, two = figures_of(whole[0]), figures_of(tmp_path / "out")
    assert one.pop("run").keys() == two.pop("run").keys() == {"seconds", "jax", "python"}
    assert one == two


def test_other_options_do_not_resume_a_run(whole):
    process = run("--epochs", 4, "--seed", 3, "--out", whole[0], "--resume", cwd=whole[0])
    assert process.returncode == 1
    assert "was started with --accumulate 1 --epochs 3 --patience 10 --seed 3. " in process.stderr


def figures_of(folder: Path) -> dict:
    return json.loads((folder / "figures.json").read_text())


def test_the_figures_are_sound(whole):
    figures = figures_of(whole[0])
    assert (figures["epochs"], figures["seed"]) == (3, 3)
    # Each training step counted once, and no evaluation: 1,293 images in batches of 64.
    assert figures["steps"] == figures["batches_counted_by_the_model"] == 3 * 20
    curves = figures["curves"]
    names = [f"{part}_{what}" for part in ("train", "validation") for what in ("loss", "accuracy")]
    assert {name: len(values) for name, values in curves.items()} == dict.fromkeys(names, 3)
    losses = curves["validation_loss"]
    assert 0 < losses[2] < losses[0] < 2.3  # the cross-entropy of guessing
    assert figures["best_epoch"] == 1 + losses.index(min(losses))
    assert 0.9 < figures["test_accuracy"] <= 1
    assert 0.9 < curves["train_accuracy"][2] <= 1


@pytest.fixture
def demo(monkeypatch):
    """The names in the program, which is not run."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return SimpleNamespace(**runpy.run_path(str(DEMO), run_name="demo"))


def begun(demo, losses, *, epochs=5, patience=2):
    """A run that has come to these validation losses."""
    curves = np.full((epochs, 4), np.nan)
    curves[: len(losses)] = np.array(losses)[:, None]
    return demo.Run(Lost(), None, demo.Metrics(), curves, 0, {"patience": patience, "seed": 0})


class Lost(oryxstate.Module):
    def call(self, x, *, training):
        return jnp.full(10, jnp.nan)


def test_a_run_is_over_after_its_epochs_or_its_patience(demo):
    for losses, over in [
        ([], False),
        ([3.0, 2.0], False),
        ([3.0, 1.0, 2.0], False),
        ([3.0, 1.0, 2.0, 1.5], True),
        ([5.0, 4.0, 3.0, 2.0, 1.0], True),
    ]:
        assert begun(demo, losses).is_over() == over


def test_a_loss_that_is_not_finite_ends_the_run(demo):
    part = demo.Images(np.zeros((64, 8, 8, 1), np.float32), np.zeros(64, np.int32))
    quiet = SimpleNamespace(step=lambda *_: None, epoch=lambda *_: None)
    saved = SimpleNamespace(save=lambda *_, **__: pytest.fail("saved what is lost"))
    run, digits = begun(demo, []), demo.Digits(part, part, part)
    with pytest.raises(ValueError, match=r"^epoch 1 ended with a loss that is not finite\. Lower"):
        demo.train(
            run, lambda *state: state[:3], digits, quiet, saved, SimpleNamespace(asked=False)
        )


def test_the_picture_can_be_read(whole):
    from matplotlib import image

    pixels = image.imread(whole[0] / "curves.png")
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 800
    assert pixels[..., :3].std() > 0.05  # something is drawn


def test_the_output_names_layers_accuracy_and_files(whole):
    folder, text = whole
    for row in ("layer.layers[2]", "layer.layers[15]", "BatchNorm", "94,186"):
        assert row in text
    assert "epoch   1/3" in text  # a line in place of the bar, which needs a terminal
    accuracy = figures_of(folder)["test_accuracy"]
    assert f"Test accuracy {accuracy:.2%} ({round(accuracy * 360)} of 360) with epoch 3" in text
    assert str(folder / "curves.png") in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epochs", "0"], "argument --epochs: must be from 1 to 10000, not 0"),
        (["--epochs", "-3"], "argument --epochs: must be from 1 to 10000, not -3"),
        (["--epochs", "many"], "argument --epochs: 'many' is not a whole number"),
        (["--epochs", "1.5"], "argument --epochs: '1.5' is not a whole number"),
        (["--accumulate", "0"], "argument --accumulate: must be from 1 to 1000, not 0"),
        (["--patience", "0"], "argument --patience: must be from 1 to 1000, not 0"),
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
    for option in ("--epochs", "--seed", "--accumulate", "--patience", "--out", "--resume"):
        assert option in process.stdout
