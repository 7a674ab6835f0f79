"""The command line of digits.py."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple, NoReturn


class Options(NamedTuple):
    epochs: int
    seed: int
    accumulate: int
    patience: int
    out: Path
    resume: bool

    def numbers(self) -> dict[str, int]:
        """Those that the figures depend on."""
        names = ("accumulate", "epochs", "patience", "seed")
        return {name: getattr(self, name) for name in names}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def parse(description: str | None) -> Options:
    """The options, checked; a bad one ends the program with one line and exit code 2."""
    parser = _Parser(prog="digits.py", description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--epochs", type=_epochs, default=30, help="passes over the training images (default: 30)")
    add("--seed", type=_seed, default=0, help="of weights, dropout and batches (default: 0)")
    add(
        "--accumulate",
        type=_count,
        default=1,
        help="batches whose gradients are averaged for one update (default: 1)",
    )
    add(
        "--patience",
        type=_count,
        default=10,
        help="epochs without a better validation loss after which to stop (default: 10)",
    )
    add(
        "--out",
        type=_folder,
        default=Path("digits-out"),
        help="folder for curves.png, figures.json and checkpoints (default: digits-out)",
    )
    add("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    options = Options(**vars(parser.parse_args()))
    try:
        _make_folder(options.out)
    except OSError as error:
        parser.error(f"argument --out: cannot write to '{options.out}': {error.strerror}")
    return options


def _integer(text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be from {low} to {high}, not {value}")
    return value


def _count(text: str) -> int:
    return _integer(text, 1, 1000)


def _epochs(text: str) -> int:
    return _integer(text, 1, 10_000)


def _seed(text: str) -> int:
    return _integer(text, 0, 2**32 - 1)


def _folder(text: str) -> Path:
    path = Path(text)
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return path


def _make_folder(path: Path) -> None:
    """A folder that can be written to: better known before the training than after it."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass
