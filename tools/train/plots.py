"""Figures of a training run: curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...whole_files import whole_file

__all__ = ["draw_confusion", "draw_curves", "save_figure"]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; the Agg canvas needs no display."""
    FigureCanvasAgg(figure)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png", bbox_inches="tight")


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, float | int]]], score: str, path: Path) -> None:
    """Draw loss and score over epochs, one colour a run.

    Args:
        runs: name of a run -> its rows of metrics.csv.
        score: column of the validation score, 0-1, e.g. `val_top1`.
        path: PNG file to write.
    """
    figure = Figure(figsize=(10, 4))
    losses, scores = figure.subplots(1, 2)
    for index, (name, rows) in enumerate(runs.items()):
        colour = f"C{index}"
        epochs = [row["epoch"] + 1 for row in rows]
        losses.plot(epochs, [row["train_loss"] for row in rows], colour, linestyle="--", label=f"{name}, training")
        losses.plot(epochs, [row["val_loss"] for row in rows], colour, label=f"{name}, validation")
        scores.plot(epochs, [100 * row[score] for row in rows], colour, label=name)
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    scores.set(
        xlabel="epoch",
        ylabel="%",
        title=score.removeprefix("val_").replace("_", " ") + " on validation images",
    )
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def draw_confusion(
    counts: Sequence[Sequence[int]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw a confusion matrix, in per cent of each row.

    Args:
        counts: images, (row, column).
        rows: names of the true classes; omitted where there are too many to read, as are the numbers.
        columns: names of the predicted classes.
        title: headline.
        path: PNG file to write.
    """
    images = np.asarray(counts, dtype=float)
    share = 100 * images / images.sum(axis=1, keepdims=True).clip(min=1)
    height, width = (min(16.0, max(4.5, 0.45 * len(names) + 2)) for names in (rows, columns))
    figure = Figure(figsize=(width + 1, height))
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    figure.colorbar(image, ax=axes, label="% of the row", fraction=0.046)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if max(len(rows), len(columns)) <= 40:
        axes.set_xticks(range(len(columns)), columns, rotation=90 if max(map(len, columns)) > 3 else 0)
        axes.set_yticks(range(len(rows)), rows)
    if max(len(rows), len(columns)) <= 20:
        for (row, column), count in np.ndenumerate(images):
            if count:
                colour = "white" if share[row, column] > 50 else "black"
                axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=8)
    save_figure(figure, path)
