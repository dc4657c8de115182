"""A contact sheet of the patches with the highest scores, with score and position below each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from ....datasets.slides.grid import Grid
from ....datasets.slides.slide import Slide, UnreadableTileError
from ....whole_files import write_atomically
from .font import load_font
from .jpeg import encode_image
from .region import read_scaled
from .score_map import ScoreMap

__all__ = ["read_patch", "top_patches", "write_contact_sheet"]

_QUALITY = 90
_CAPTION, _GAP, _FONT = 34, 8, 12


def top_patches(grid: Grid, values: Float[np.ndarray, " patches"], count: int) -> list[int]:
    """Indices of the patches with the highest scores, the highest first, that do not overlap each other.

    Args:
        grid: of the patches.
        values: their scores; what is not a number is passed over, and of equal ones the first comes first.
        count: how many at most.

    Example:
        >>> from regard.datasets.slides.grid import Grid
        >>> indices = np.array([[0, 0], [5, 0], [10, 0]])
        >>> grid = Grid(indices, np.ones(3), patch=10, side=10, step=5, mpp=0.5, slide_mpp=0.5, width=20, height=10)
        >>> top_patches(grid, np.array([0.8, 0.9, 0.2]), 2)
        [1]
    """
    chosen: list[int] = []
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    for index in order[np.isfinite(values[order])].tolist():
        if len(chosen) >= count:
            break
        apart = np.abs(grid.coordinates[chosen] - grid.coordinates[index]).max(axis=-1, initial=0) >= grid.side
        if apart.all():
            chosen.append(index)
    return chosen


def read_patch(slide: Slide, grid: Grid, index: int, side_px: int) -> UInt8[np.ndarray, "side side 3"]:
    """One patch as an image, from the level that suits.

    Args:
        slide: that is read.
        grid: of the patches.
        index: of the patch in the grid.
        side_px: side of the image.

    Raises:
        UnreadableTileError: its data are damaged.
    """
    x, y = grid.coordinates[index].tolist()
    return read_scaled(slide, x, y, side_px, side_px, grid.side / side_px)


def write_contact_sheet(
    path: Path, slide: Slide, grid: Grid, score_map: ScoreMap, *, count: int = 12, columns: int = 6, side_px: int = 192
) -> list[int]:
    """Write a JPEG of the patches with the highest scores.

    Args:
        path: file to write.
        slide: that the patches are of.
        grid: their indices.
        score_map: their scores.
        count: how many; those whose data are damaged are passed over.
        columns: patches in a row.
        side_px: side of a patch on the sheet.

    Returns:
        Rows (indices) of the patches on the sheet.

    Raises:
        ValueError: the number of patches or columns is below 1.
    """
    if count < 1 or columns < 1:
        raise ValueError(f"a sheet of {count} patches in {columns} columns is not possible; give at least 1 of each")
    shown, percentile = score_map.on("absolute"), score_map.on("percentile")
    images: list[tuple[int, UInt8[np.ndarray, "side side 3"]]] = []
    for index in top_patches(grid, score_map.values, count):
        try:
            images.append((index, read_patch(slide, grid, index, side_px)))
        except UnreadableTileError:
            continue
    captions = [
        (
            f"{rank}.  {_in_words(score_map, shown[index])}  (percentile {percentile[index]:.0f})",
            "x {}  y {}".format(*grid.coordinates[index].tolist()),
        )
        for rank, (index, _) in enumerate(images, start=1)
    ]
    sheet = _sheet([image for _, image in images], captions, columns, side_px)
    write_atomically(path, encode_image(sheet, "JPEG", _QUALITY))
    return [index for index, _ in images]


def _in_words(score_map: ScoreMap, value: float) -> str:
    return f"{value:.3g}\N{MULTIPLICATION SIGN} uniform" if score_map.kind == "attention" else f"{value:.3f}"


def _sheet(
    images: Sequence[UInt8[np.ndarray, "side side 3"]],
    captions: Sequence[tuple[str, str]],
    columns: int,
    side_px: int,
) -> Image.Image:
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    across, down = side_px + _GAP, side_px + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), load_font(_FONT)
    if not images:
        pen.text((_GAP, _GAP), "no patch", "black", font)
    for index, (image, words) in enumerate(zip(images, captions, strict=True)):
        x, y = _GAP + index % columns * across, _GAP + index // columns * down
        sheet.paste(Image.fromarray(image), (x, y))
        for line, text in enumerate(words):
            pen.text((x, y + side_px + 2 + 15 * line), text, "black", font)
    return sheet
