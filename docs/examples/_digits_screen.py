"""Output while the program runs: tables and a progress bar, or plain lines in a log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _digits_arguments import Options
from _digits_data import Digits
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import oryxstate as ox

LINES = 10  # of progress, where there is no terminal to draw a bar on


class Screen:
    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def show_data(self, digits: Digits) -> None:
        """Say how many images there are."""
        train, validation, test = (len(part.labels) for part in digits)
        self.console.print(
            f"[bold]{train + validation + test:,} handwritten digits[/] of 8x8 pixels: {train:,} "
            f"to train on, {validation} to choose the best epoch by, {test} held out.\n"
        )

    def show_summary(self, model: Any, digits: Digits) -> None:
        """Show one row for each layer of the model, and what it does to one image."""
        image = digits.train.images[0]
        self.console.print(f"{ox.summary(model, ox.ArraySpec(image.shape))}\n", soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, run: Any, steps: int) -> Iterator[_Progress]:
        """Show a live bar on a terminal; elsewhere a line now and then."""
        if run.step:
            self.console.print(f"Go on after {run.step:,} steps.")
        bar = Progress(
            TextColumn("epoch {task.fields[epoch]:>3}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss [bold]{task.fields[loss]:.4f}[/]"),
            TextColumn("accuracy [bold]{task.fields[accuracy]:6.2%}[/]"),
            TextColumn("validation [bold green]{task.fields[validation]}[/]"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
        )
        with bar:
            yield _Progress(self.console, bar, len(run.curves), steps, run.step)

    def show_stopped(self, run: Any, options: Options) -> int:
        """Say how to go on, and return the exit status of an interrupted program."""
        command = " ".join(f"--{name} {value}" for name, value in run.options.items())
        self.console.print(
            f"Stopped after {run.step:,} steps. Go on with\n"
            f"  digits.py --resume --out {options.out} {command}",
            soft_wrap=True,
        )
        return 130

    def show_result(
        self, figures: dict[str, Any], digits: Digits, seconds: float, paths: list[Path]
    ) -> None:
        """Say what the model has come to."""
        total = len(digits.test.labels)
        found = round(figures["test_accuracy"] * total)
        counted, steps = figures["batches_counted_by_the_model"], figures["steps"]
        done = len(figures["curves"]["train_loss"])
        self.console.print(
            f"\n[bold green]Test accuracy {figures['test_accuracy']:.2%}[/] ({found} of {total}) "
            f"with epoch {figures['best_epoch']} of {done}, in {seconds:.0f} s."
        )
        self.console.print(
            f"The model's own counter stood at {counted:,} after {steps:,} training steps."
        )
        for path in paths:
            self.console.print(f"Wrote {path}", soft_wrap=True)


class _Progress:
    def __init__(self, console: Console, bar: Progress, epochs: int, steps: int, done: int) -> None:
        self.console, self.bar, self.epochs = console, bar, epochs
        self.every = max(1, epochs // LINES)
        self.task = bar.add_task(
            "",
            total=epochs * steps,
            completed=done,
            epoch=1 + done // steps,
            epochs=epochs,
            loss=float("nan"),
            accuracy=0.0,
            validation="      -",
        )

    def step(self, loss: float, accuracy: float) -> None:
        """Show means over the epoch so far, after one batch more."""
        self.bar.update(self.task, advance=1, loss=loss, accuracy=accuracy)

    def epoch(
        self,
        i: int,
        loss: float,
        accuracy: float,
        validation_loss: float,
        validation_accuracy: float,
    ) -> None:
        """Show the means of an epoch: of training, and of validation."""
        done = i + 1
        self.bar.update(
            self.task,
            validation=f"{validation_accuracy:7.2%}",
            epoch=min(done + 1, self.epochs),
        )
        if self.bar.disable and (done % self.every == 0 or done in (1, self.epochs)):
            self.console.print(
                f"epoch {done:>3}/{self.epochs}  loss {loss:.4f}  accuracy {accuracy:7.2%}  "
                f"validation {validation_loss:.4f} {validation_accuracy:7.2%}"
            )
