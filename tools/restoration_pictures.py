"""Pictures of restoration: curves of a run, and what came out beside what went in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from .pictures import save_figure

__all__ = ["draw_restoration_curves"]


def draw_restoration_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the training loss, and PSNR and SSIM of the pictures not learnt from, over epochs.

    Args:
        rows: of metrics.csv.
        path: PNG file to write.
    """
    figure = Figure(figsize=(13, 4))
    for axes, (column, title) in zip(
        figure.subplots(1, 3),
        (("train_loss", "training loss"), ("val_psnr_y", "PSNR Y (dB)"), ("val_ssim_y", "SSIM Y")),
        strict=True,
    ):
        axes.plot([row["epoch"] + 1 for row in rows], [row[column] for row in rows])
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
    save_figure(figure, path)
