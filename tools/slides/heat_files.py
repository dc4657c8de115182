"""All files of a slide's heatmap at once: pictures, tables, and what QuPath opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...datasets.slides.grid import Grid
from ...datasets.slides.slide import Slide
from .heat import Heat

__all__ = ["write_heat_files"]


def write_heat_files(
    out: Path,
    slide_id: str,
    slide: Slide,
    grid: Grid,
    heats: Sequence[Heat],
    *,
    regions: Any = None,
    longest_px: int = 1536,
    top: int = 12,
    opacity: float = 0.5,
    overlay: bool = True,
) -> dict[str, str]:
    """Write OUT/heatmaps/ID_*.png, .csv, .geojson and .tiff, and OUT/top/ID.jpg; gives name -> path within OUT.

    Args:
        out: the folder of results.
        slide_id: what the files are named after.
        slide: that the patches are of.
        grid: places of the patches.
        heats: the first is drawn; the others are columns of the table and measurements of the tiles.
        regions: the tissue, a shapely geometry in pixels of full resolution, whose outline is drawn.
        longest_px: longer side of the pictures.
        top: patches of the contact sheet.
        opacity: of the heatmap on the slide, 0-1.
        overlay: whether the TIFF is written.
    """
    raise NotImplementedError
