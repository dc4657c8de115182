"""Plots of restoration: curves of a run, and details of restored images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .plots import save_figure

__all__ = ["draw_comparison", "draw_restoration_curves"]


def draw_restoration_curves(rows: Sequence[Mapping[str, float | int]], path: Path) -> None:
    """Plot the training loss, and validation PSNR and SSIM, over epochs.

    Args:
        rows: rows of metrics.csv.
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


def draw_comparison(
    shown: Sequence[np.ndarray],
    row: Mapping[str, float | int],
    details: Sequence[tuple[int, int, int]],
    path: Path,
) -> None:
    """Plot the high-quality image with details framed, and each detail of all four images, pixel by pixel.

    Args:
        shown: low-quality, bicubic, restored and high-quality image, as 8-bit RGB; the first may be smaller.
        row: `psnr_y`, `ssim_y` and the same with the prefix `plain_`.
        details: row, column and side in pixels of the high-quality image.
        path: PNG file to write.
    """
    lq, plain, restored, hq = shown
    scale = hq.shape[0] // lq.shape[0]
    titles = (
        f"low quality: {lq.shape[1]} x {lq.shape[0]}",
        f"bicubic\n{row['plain_psnr_y']:.2f} dB, SSIM {row['plain_ssim_y']:.4f}",
        f"restored\n{row['psnr_y']:.2f} dB, SSIM {row['ssim_y']:.4f}",
        f"high quality: {hq.shape[1]} x {hq.shape[0]}",
    )
    figure = Figure(figsize=(4 + 3 * 4, 3 * len(details) + 0.6), layout="constrained")
    subfigures: Any = figure.subfigures(1, 2, width_ratios=(1, 3))
    whole, table = subfigures
    axes = whole.subplots()
    axes.imshow(hq)
    axes.set_axis_off()
    cells = table.subplots(len(details), 4, squeeze=False)
    for index, (top, left, side) in enumerate(details):
        colour = f"C{index + 1}"
        axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=colour, linewidth=2))
        for cell, image, title in zip(cells[index], (lq, plain, restored, hq), titles, strict=True):
            shrink = scale if image is lq else 1
            rows, columns = (slice(start // shrink, (start + side) // shrink) for start in (top, left))
            cell.imshow(image[rows, columns], interpolation="nearest")
            cell.set(xticks=[], yticks=[], title=title if index == 0 else "")
            for spine in cell.spines.values():
                spine.set(edgecolor=colour, linewidth=2)
    save_figure(figure, path)
