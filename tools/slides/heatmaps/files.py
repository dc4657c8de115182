"""Writes all heatmap files of a slide: images, a table, and files for QuPath."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ....datasets.slides.grid import Grid
from ....datasets.slides.slide import Slide, UnreadableTileError
from ....whole_files import write_atomically
from ..result import check_id
from .contact_sheet import write_contact_sheet
from .jpeg import encode_image
from .overlay_tiff import write_overlay
from .patch_raster import rasterize
from .patch_scores import write_score_table, write_score_tiles
from .region import read_scaled
from .rendering import draw_heatmap, overlay_heatmap
from .score_map import SCALES, ScoreMap, scale_of

__all__ = ["slide_overview", "write_heatmaps"]

#: Side of the parts in which an image is read; a part that is damaged stays white.
_STRIP = 256
#: Longer side of the small image in the report.
_PREVIEW_PX = 320
_OVERLAY_PX = 8192
_QUALITY = 85


def slide_overview(slide: Slide, max_px: int) -> tuple[UInt8[np.ndarray, "height width 3"], float]:
    """The whole slide small, and its downsample; damaged parts are white.

    Args:
        slide: to read.
        max_px: longer side of the image at most; a slide is not enlarged.

    Raises:
        ValueError: the length is below 1.
    """
    if max_px < 1:
        raise ValueError(f"the longer side is to have {max_px} pixels; give 1 at least")
    width, height = slide.levels[0].width, slide.levels[0].height
    downsample = max(1.0, max(width, height) / max_px)
    columns, rows = max(1, round(width / downsample)), max(1, round(height / downsample))
    image = np.full((rows, columns, 3), 255, np.uint8)
    for top in range(0, rows, _STRIP):
        for left in range(0, columns, _STRIP):
            part = image[top : top + _STRIP, left : left + _STRIP]
            x, y = round(left * downsample), round(top * downsample)
            try:
                part[:] = read_scaled(slide, x, y, part.shape[1], part.shape[0], downsample)
            except UnreadableTileError:
                continue
    return image, downsample


def write_heatmaps(
    out: Path,
    slide_id: str,
    slide: Slide,
    grid: Grid,
    score_maps: Sequence[ScoreMap],
    *,
    regions: Any = None,
    title: str = "",
    max_px: int = 1536,
    top: int = 12,
    opacity: float = 0.5,
    overlay: int | None = None,
) -> dict[str, str]:
    """Write OUT/heatmaps/ID_*.png, _preview.jpg, .csv, .geojson and .tiff, and OUT/top/ID.jpg.

    Args:
        out: the folder of results.
        slide_id: what the files are named after.
        slide: that the patches are of.
        grid: indices of the patches, one at least.
        score_maps: the first is drawn; the others are columns of the table and measurements of the tiles.
        regions: the tissue, a shapely geometry in pixels of full resolution, whose outline is drawn.
        title: headline of the images; by default the id.
        max_px: longer side of the images.
        top: patches of the contact sheet; 0 writes none.
        opacity: of the heatmap on the slide, 0-1.
        overlay: downsample of the TIFF; 0 writes none, and by default its longer side has 8192 pixels at most.

    Returns:
        Name -> path within OUT: heatmap_absolute, heatmap_percentile, preview, scores, tiles, overlay, top.

    Raises:
        ValueError: no score_map, or no patch, or not one value a patch; or the id names no file.
    """
    if not score_maps or not len(grid):
        raise ValueError(f"a heatmap needs patches and scores; {len(grid)} patches came with {len(score_maps)} scores")
    check_id(slide_id)
    files = {f"heatmap_{scale}": f"heatmaps/{slide_id}_{scale}.png" for scale in SCALES}
    files |= {"scores": f"heatmaps/{slide_id}.csv", "tiles": f"heatmaps/{slide_id}.geojson"}
    main = score_maps[0]
    image, downsample = slide_overview(slide, max_px)
    for scale in SCALES:
        raster = rasterize(grid, main.on(scale))
        words: dict[str, Any] = {"regions": regions, "opacity": opacity, "title": title or slide_id}
        draw_heatmap(out / files[f"heatmap_{scale}"], image, downsample, raster, scale_of(main.kind, scale), **words)
    files["preview"] = f"heatmaps/{slide_id}_preview.jpg"
    raster, scale_shown = rasterize(grid, main.on("absolute")), scale_of(main.kind, "absolute")
    preview = Image.fromarray(overlay_heatmap(image, downsample, raster, scale_shown, opacity))
    preview.thumbnail((_PREVIEW_PX, _PREVIEW_PX), reducing_gap=3.0)
    write_atomically(out / files["preview"], encode_image(preview, "JPEG", _QUALITY))
    write_score_table(out / files["scores"], grid, score_maps)
    write_score_tiles(out / files["tiles"], slide_id, grid, score_maps)
    if overlay is None:
        longest = max(slide.levels[0].width, slide.levels[0].height)
        overlay = 2 ** max(0, math.ceil(math.log2(longest / _OVERLAY_PX)))
    if overlay:
        files["overlay"] = f"heatmaps/{slide_id}.tiff"
        write_overlay(out / files["overlay"], slide, raster, scale_shown, downsample=overlay, opacity=opacity)
    if top:
        files["top"] = f"top/{slide_id}.jpg"
        write_contact_sheet(out / files["top"], slide, grid, main, count=top)
    return files
