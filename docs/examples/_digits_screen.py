"""Output while the program runs: tables and a progress bar, or plain lines in a log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from _digits_data import Digits
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import oryxstate as ox

LINES = 10  # of progress, where there is no terminal to draw a bar on


class Screen:
    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def show_data(self, digits: Digits) -> None:
        """How many images there are."""
        train, test = len(digits.train_labels), len(digits.test_labels)
        self.console.print(
            f"[bold]{train + test:,} handwritten digits[/] of 8x8 pixels: "
            f"{train:,} to train on, {test:,} held out.\n"
        )

    def show_summary(self, model: Any) -> None:
        """One row for each variable of the model, and the totals."""
        table = Table(title=f"{type(model).__name__}: its variables", title_justify="left")
        table.add_column("variable", no_wrap=True)
        table.add_column("kind")
        table.add_column("shape")
        table.add_column("dtype")
        table.add_column("count", justify="right")
        totals = dict.fromkeys(("param", "state"), 0)
        for path, kind, leaf in _variables(model):
            totals[kind] += leaf.size
            shape = "x".join(map(str, leaf.shape)) or "scalar"
            style = "green" if kind == "state" else None
            table.add_row(path, kind, shape, str(leaf.dtype), f"{leaf.size:,}", style=style)
        table.add_section()
        for kind, total in totals.items():
            table.add_row("total", kind, "", "", f"{total:,}", style="bold")
        self.console.print(table)

    @contextlib.contextmanager
    def progress(self, epochs: int, steps: int) -> Iterator[_Progress]:
        """A live bar on a terminal; elsewhere a line now and then."""
        bar = Progress(
            TextColumn("epoch {task.fields[epoch]:>3}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss [bold]{task.fields[loss]:.4f}[/]"),
            TextColumn("accuracy [bold]{task.fields[accuracy]:6.2%}[/]"),
            TextColumn("held out [bold green]{task.fields[test]}[/]"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
        )
        with bar:
            yield _Progress(self.console, bar, epochs, steps)

    def show_result(
        self, figures: dict[str, Any], digits: Digits, seconds: float, paths: list[Path]
    ) -> None:
        """What the model has come to."""
        total = len(digits.test_labels)
        found = round(figures["test_accuracy"] * total)
        counted, steps = figures["batches_counted_by_the_model"], figures["steps"]
        self.console.print(
            f"\n[bold green]Test accuracy {figures['test_accuracy']:.2%}[/] "
            f"({found} of {total}) after {_epochs(figures['epochs'])} in {seconds:.0f} s."
        )
        self.console.print(
            f"The model's own counter stands at {counted:,} after {steps:,} training steps."
        )
        for path in paths:
            self.console.print(f"Wrote {path}", soft_wrap=True)


class _Progress:
    def __init__(self, console: Console, bar: Progress, epochs: int, steps: int) -> None:
        self.console, self.bar, self.epochs = console, bar, epochs
        self.every = max(1, epochs // LINES)
        self.done = 0
        self.task = bar.add_task(
            "",
            total=epochs * steps,
            epoch=1,
            epochs=epochs,
            loss=float("nan"),
            accuracy=0.0,
            test="      -",
        )

    def step(self, loss: float, accuracy: float) -> None:
        """One batch was seen; means over the epoch so far."""
        self.bar.update(
            self.task,
            advance=1,
            loss=loss,
            accuracy=accuracy,
            epoch=min(self.done + 1, self.epochs),
        )

    def epoch(
        self, train_loss: float, train_accuracy: float, test_loss: float, test_accuracy: float
    ) -> None:
        """One pass over the training images is done."""
        self.done += 1
        self.bar.update(self.task, test=f"{test_accuracy:7.2%}")
        if self.bar.disable and (self.done % self.every == 0 or self.done in (1, self.epochs)):
            self.console.print(
                f"epoch {self.done:>3}/{self.epochs}  loss {train_loss:.4f}  "
                f"accuracy {train_accuracy:7.2%}  held out {test_accuracy:7.2%}"
            )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _variables(model: Any) -> list[tuple[str, str, jax.Array]]:
    """Path, kind and value of each array, in the order of the model."""
    learned = ox.named_leaves(ox.partition(model)[0])
    return [
        (path, "param" if path in learned else "state", leaf)
        for path, leaf in ox.named_leaves(model).items()
    ]
