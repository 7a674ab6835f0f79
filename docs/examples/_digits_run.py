"""The folder of a run, and its checkpoints."""

from __future__ import annotations

from typing import TypeVar

from _digits_arguments import Options

import oryxstate as ox

T = TypeVar("T")


def opened(options: Options) -> ox.checkpoint.Checkpoints:
    """Return the checkpoints of the run to go on with, or of a new one.

    Raises:
        FileExistsError: if a run would be lost that has not come to its end.
    """
    figures = options.out / "figures.json"
    checkpoints = ox.checkpoint.Checkpoints(
        options.out / "checkpoints", keep_last=2, keep_best=1, metric="loss"
    )
    if options.resume:
        return checkpoints
    if checkpoints.latest() is not None and not figures.exists():
        raise FileExistsError(
            f"'{options.out}' has a run that is not over. Go on with it, --resume, or give a new "
            "one another folder, --out"
        )
    figures.unlink(missing_ok=True)
    for step in checkpoints.steps():
        checkpoints.delete(step)
    return checkpoints


def resumed(checkpoints: ox.checkpoint.Checkpoints, run: T) -> T:
    """Return the run as it was last saved.

    Raises:
        ValueError: if that run was started with other options.
    """
    given: dict[str, int] = run.options
    numbers = ox.select.path("options") & ox.select.static
    saved = checkpoints.restore(run, select=numbers).options
    if saved != given:
        command = " ".join(f"--{name} {value}" for name, value in saved.items())
        raise ValueError(
            f"the run in '{checkpoints.folder.parent}' was started with {command}. Go on with "
            "these, or give a new run another folder, --out"
        )
    return checkpoints.restore(run)
