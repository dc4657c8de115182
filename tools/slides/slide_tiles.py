"""A slide as a pyramid of small JPEG tiles, which a page loads on zooming."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...datasets.slides.slide import Slide, UnreadableTileError
from .heatmaps.jpeg import encode_image

__all__ = ["TILE", "TilePyramid", "best_level", "write_tiles"]

#: Side of a tile in pixels.
TILE = 512
_QUALITY = 85
#: A tile whose darkest value is this or more is white, and not written.
_WHITE = 252


@dataclass
class TilePyramid:
    """The tiles of a page; zoom 0 shows the whole slide in one tile.

    Attributes:
        downsample: pixels of full resolution that a pixel of the finest zoom spans.
        finest: the finest zoom; each zoom has half the pixels of the next.
        tiles: zoom, column and row of the files zoom/column_row.jpg; others are white.
        damaged: tiles of the finest zoom that could not be read, and are white, too.
    """

    downsample: float
    finest: int
    tiles: list[tuple[int, int, int]] = field(default_factory=list)
    damaged: int = 0


def best_level(slide: Slide, downsample: float) -> tuple[int, int]:
    """The level from which an image is made with the least reading, and by how much it must be reduced.

    Args:
        slide: to read.
        downsample: at least 1; the result is that, or up to 1.5 times it where a level has it.

    Returns:
        The level, and the whole number of its pixels that become one.
    """
    levels = [level.downsample for level in slide.levels]
    if downsample > 1:
        near = [index for index, own in enumerate(levels) if 0.99 * downsample <= own <= 1.5 * downsample]
        if near:
            return min(near, key=lambda index: levels[index]), 1
    finer = [index for index, own in enumerate(levels) if own <= 1.01 * downsample] or [0]
    index = max(finer, key=lambda index: levels[index])
    return index, max(1, math.ceil(downsample / levels[index] - 0.01))


def write_tiles(folder: Path, slide: Slide, max_px: int = 8192) -> TilePyramid:
    """Write a pyramid of tiles; memory stays at some tiles, whatever the slide's size.

    Args:
        folder: where to; FOLDER/zoom/column_row.jpg.
        slide: what is shown.
        max_px: longer side of the slide at the finest zoom, at most.

    Raises:
        ValueError: the length is less than a tile.
    """
    if max_px < TILE:
        raise ValueError(f"max_px is {max_px}; give {TILE} at least")
    width, height = slide.levels[0].width, slide.levels[0].height
    level, factor = best_level(slide, max(1.0, max(width, height) / max_px))
    downsample = slide.levels[level].downsample * factor
    span = max(width, height) / downsample / TILE  # of the slide, in tiles of the finest zoom
    pyramid = TilePyramid(downsample, max(0, math.ceil(math.log2(span) - 1e-9)))

    def build(zoom: int, column: int, row: int) -> Image.Image | None:
        """The tile, once it and all below it are written; None if it is white."""
        side = TILE * downsample * 2 ** (pyramid.finest - zoom)
        left, top = round(column * side), round(row * side)
        if left >= width or top >= height:
            return None
        if zoom == pyramid.finest:
            try:
                pixels = slide.read(left, top, TILE * factor, TILE * factor, level)
            except UnreadableTileError:
                pyramid.damaged += 1
                return None
            tile = Image.fromarray(pixels).reduce(factor) if factor > 1 else Image.fromarray(pixels)
        else:
            parts = [(x, y, build(zoom + 1, 2 * column + x, 2 * row + y)) for y in (0, 1) for x in (0, 1)]
            if all(part is None for _, _, part in parts):
                return None
            four = Image.new("RGB", (2 * TILE, 2 * TILE), "white")
            for x, y, part in parts:
                if part is not None:
                    four.paste(part, (x * TILE, y * TILE))
            tile = four.reduce(2)
        if np.asarray(tile).min() >= _WHITE:
            return None
        path = folder / str(zoom) / f"{column}_{row}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(tile, "JPEG", _QUALITY))
        pyramid.tiles.append((zoom, column, row))
        return tile

    build(0, 0, 0)
    return pyramid
