"""A rectangle of a slide at any scale."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ....datasets.slides.slide import Slide

__all__ = ["read_scaled"]


def read_scaled(
    slide: Slide, x: int, y: int, width_px: int, height_px: int, downsample: float
) -> UInt8[np.ndarray, "height width 3"]:
    """A rectangle in RGB, made from the coarsest level that is fine enough.

    Args:
        slide: to read.
        x: of the left edge in pixels of full resolution.
        y: of the upper edge.
        width_px: of the image.
        height_px: of the image.
        downsample: pixels of full resolution that one of its pixels spans; below 1 it is enlarged.

    Raises:
        UnreadableTileError: data of the rectangle are damaged.
    """
    finer = [index for index, level in enumerate(slide.levels) if level.downsample <= 1.01 * downsample] or [0]
    index = max(finer, key=lambda index: slide.levels[index].downsample)
    ratio = downsample / slide.levels[index].downsample
    if abs(ratio - 1) < 1e-3:
        return slide.read(x, y, width_px, height_px, index)
    wide, high = width_px * ratio, height_px * ratio  # in pixels of the level
    pixels = Image.fromarray(slide.read(x, y, math.ceil(wide), math.ceil(high), index))
    size, box = (width_px, height_px), (0, 0, wide, high)
    return np.asarray(pixels.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))
