"""Files that the program leaves: the learning curves, drawn and as numbers."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from _digits_data import Images
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

TRAIN, TEST, INK, WRONG = "#9aa5b1", "#0b6e4f", "#1f2933", "#c52707"
SHOWN = 8  # held-out digits that are drawn


def write_figures(folder: Path, figures: dict[str, Any], seconds: float) -> Path:
    """The figures as JSON: equal for equal seeds, but for what stands under `run`."""
    path = folder / "figures.json"
    run = {
        "seconds": round(seconds, 1),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    path.write_text(json.dumps({**figures, "run": run}, indent=2) + "\n")
    return path


def write_curves(
    folder: Path, curves: dict[str, list[float]], test: Images, logits: np.ndarray
) -> Path:
    """Draw loss and accuracy by epoch, above the test images that the model finds hardest."""
    path = folder / "curves.png"
    style = {"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "font.size": 10}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 6.2), layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        above, below = figure.subfigures(2, 1, height_ratios=(3, 1), hspace=0.04)
        left, right = above.subplots(1, 2)
        _draw(left, curves, "loss", "Cross-entropy")
        left.set_yscale("log")
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
        _draw(right, curves, "accuracy", "Accuracy")
        right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if curves["validation_accuracy"][-1] > 0.95 and len(curves["train_accuracy"]) > 3:
            right.set_ylim(0.9, 1.004)  # where the curves differ; the first epochs lie below
        _draw_hardest(below, test, logits)
        figure.savefig(path, dpi=150)
    return path


def _draw(axes: Any, curves: dict[str, list[float]], quantity: str, title: str) -> None:
    for part, color, label in (("train", TRAIN, "training"), ("validation", TEST, "validation")):
        values = curves[f"{part}_{quantity}"]
        last = f"{values[-1]:.2%}" if quantity == "accuracy" else f"{values[-1]:.2g}"
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=color,
            linewidth=2,
            marker="o" if len(values) < 3 else None,
            label=f"{label}, at the end {last}",
        )
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_hardest(figure: Any, test: Images, logits: np.ndarray) -> None:
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    labels, answers = test.labels, logits.argmax(1)
    certainty = probabilities[np.arange(len(labels)), labels]
    wrong = int((answers != labels).sum())
    figure.suptitle(
        f"The hardest of {len(labels)} held-out digits, {wrong} misread",
        x=0.012,
        ha="left",
        fontweight="bold",
    )
    for axes, i in zip(figure.subplots(1, SHOWN), certainty.argsort(stable=True), strict=False):
        right = answers[i] == labels[i]
        how = f", {certainty[i]:.0%} sure" if right else f" read as {answers[i]}"
        axes.imshow(test.images[i, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
        axes.set_xlabel(f"{labels[i]}{how}", color=INK if right else WRONG)
        axes.spines[:].set_color("#cbd2d9" if right else WRONG)
        axes.set(xticks=[], yticks=[])
