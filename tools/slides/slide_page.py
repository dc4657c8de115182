"""A page to zoom into a slide, with its heatmap over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...datasets.slides.grid import Grid
from ...datasets.slides.slide import Slide
from .heat import Heat
from .result import SlideResult

__all__ = ["write_slide_page"]


def write_slide_page(
    out: Path,
    result: SlideResult,
    slide: Slide,
    grid: Grid,
    heats: Sequence[Heat],
    *,
    regions: Any = None,
    longest_px: int = 8192,
    top: int = 12,
) -> str:
    """Write OUT/pages/ID/index.html with its tiles; gives the page's path within OUT.

    Args:
        out: the folder of results.
        result: what is known of the slide.
        slide: that is shown.
        grid: places of the patches; may be empty.
        heats: what can be laid over the slide; may be empty.
        regions: the tissue, a shapely geometry in pixels of full resolution.
        longest_px: longer side of the slide at the finest zoom.
        top: patches with the highest scores of the first heat that are there at full resolution.
    """
    raise NotImplementedError
