"""A heatmap as an image: over the slide, with its outline of tissue and a labelled colour bar."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from ....whole_files import write_atomically
from .font import load_font
from .jpeg import encode_image
from .patch_raster import PatchRaster
from .score_map import Scale

__all__ = ["draw_heatmap", "outlines", "overlay_heatmap"]

_OUTLINE = (20, 20, 20)
_BAR, _MARGIN, _FONT = 16, 12, 13


def outlines(regions: Any, tolerance: float = 0.0) -> list[list[tuple[float, float]]]:
    """The rings of a geometry, outer and inner ones.

    Args:
        regions: of shapely: polygons, or what is made of them; None has none.
        tolerance: how far a point may be moved to have fewer of them, in pixels of full resolution.
    """
    if regions is None or regions.is_empty:
        return []
    if tolerance > 0:
        regions = regions.simplify(tolerance)
    polygons = [part for part in getattr(regions, "geoms", [regions]) if part.geom_type == "Polygon"]
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    return [[(float(x), float(y)) for x, y in ring.coords] for ring in rings]


def overlay_heatmap(
    image: UInt8[np.ndarray, "height width 3"], downsample: float, raster: PatchRaster, scale: Scale, opacity: float
) -> UInt8[np.ndarray, "height width 3"]:
    """An image of the slide with the heatmap over it; what no patch covers stays as it is.

    Args:
        image: of the whole slide.
        downsample: pixels of full resolution that one of its pixels spans.
        raster: the values, as the scale shows them.
        scale: what their colours are.
        opacity: of the heatmap, 0-1.

    Raises:
        ValueError: the opacity is not in 0-1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"the heatmap is to cover {opacity:g} of the slide; give an opacity between 0 and 1")
    height, width = image.shape[:2]
    values = raster.at((np.arange(width) + 0.5) * downsample, (np.arange(height) + 0.5) * downsample)
    covered = np.isfinite(values)
    over = image.copy()
    if covered.any():
        colours = scale.paint(values[None, covered])[0, :, :3]
        over[covered] = (image[covered] * np.float32(1 - opacity) + colours * np.float32(opacity) + 0.5).astype(
            np.uint8
        )
    return over


def draw_heatmap(
    path: Path,
    image: UInt8[np.ndarray, "height width 3"],
    downsample: float,
    raster: PatchRaster,
    scale: Scale,
    *,
    regions: Any = None,
    opacity: float = 0.5,
    title: str = "",
) -> None:
    """Write a PNG of the slide under its heatmap, with a colour bar below.

    Args:
        path: file to write.
        image: of the whole slide.
        downsample: pixels of full resolution that one of its pixels spans.
        raster: the values, as the scale shows them.
        scale: what their colours are.
        regions: geometry of shapely in pixels of full resolution, whose outline is drawn.
        opacity: of the heatmap, 0-1.
        title: headline; it is cut to the image's width.

    Raises:
        ValueError: the opacity is not in 0-1.
    """
    over = Image.fromarray(overlay_heatmap(image, downsample, raster, scale, opacity))
    pen = ImageDraw.Draw(over)
    for ring in outlines(regions, downsample / 2):
        pen.line([(x / downsample, y / downsample) for x, y in ring], _OUTLINE, width=2)
    font = load_font(_FONT)
    head = _MARGIN + 18 if title else 0
    width = max(over.width, 420)
    sheet = Image.new("RGB", (width, head + over.height + 4 * _MARGIN + _BAR + 18), "white")
    sheet.paste(over, ((width - over.width) // 2, head))
    pen = ImageDraw.Draw(sheet)
    if title:
        while len(title) > 4 and pen.textlength(title, font) > width - 2 * _MARGIN:
            title = title[:-2].rstrip("\N{HORIZONTAL ELLIPSIS}") + "\N{HORIZONTAL ELLIPSIS}"
        pen.text((_MARGIN, _MARGIN // 2), title, "black", font)
    _colour_bar(sheet, pen, font, scale, head + over.height + _MARGIN)
    write_atomically(path, encode_image(sheet, "PNG"))


def _colour_bar(sheet: Image.Image, pen: ImageDraw.ImageDraw, font: Any, scale: Scale, top: int) -> None:
    """What is shown in words, the colours, and their numbers below."""
    left, right = _MARGIN, min(sheet.width - _MARGIN, _MARGIN + 640)
    pen.text((left, top - 4), scale.label, "black", font)
    top += 16
    steps = np.linspace(0, 1, right - left)
    values = scale.low * (scale.high / scale.low) ** steps if scale.logarithmic else steps * scale.high
    colours = np.repeat(scale.paint(values[None])[..., :3], _BAR, axis=0)
    sheet.paste(Image.fromarray(colours), (left, top))
    for value, words in scale.ticks.items():
        x = left + float(scale.share(np.array([value]))[0]) * (right - left - 1)
        pen.line([(x, top + _BAR), (x, top + _BAR + 4)], "black")
        half = pen.textlength(words, font) / 2
        pen.text((math.floor(min(max(x - half, left), right - 2 * half)), top + _BAR + 4), words, "black", font)
