"""Thumbnails of whole slides, and reading around damaged data."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .slide import Slide, UnreadableTileError

__all__ = ["read_around_damage", "read_thumbnail"]

#: Side of the blocks that are read of a level, in its pixels.
_BLOCK = 1024

#: Smallest block that is tried around damaged data, in pixels of the level.
_MIN_BLOCK = 64


def read_thumbnail(slide: Slide, max_px: int) -> tuple[UInt8[np.ndarray, "height width 3"], float]:
    """Read the whole slide, reduced by averaging from the coarsest level that is fine enough.

    It is read block by block, so that a slide of one level does not fill the memory. Damaged parts are white.

    Args:
        slide: an open slide.
        max_px: largest length of the longer side in pixels; a smaller slide is not enlarged.

    Returns:
        The image, and its downsample: the pixels of full resolution that one of its pixels spans. Its right and lower
        edges may extend beyond the slide by less than a pixel.

    Raises:
        ValueError: `max_px` is below 1.

    Example:
        >>> from regard.datasets.slides.image_slide import ImageSlide
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (600, 400), "navy").save(f"{folder}/a.png")
        ...     canvas, downsample = read_thumbnail(ImageSlide(f"{folder}/a.png"), 150)
        >>> canvas.shape, downsample
        ((100, 150, 3), 4.0)
    """
    if max_px < 1:
        raise ValueError(f"max_px is {max_px}; give 1 at least")
    full = slide.levels[0]
    downsample = max(1.0, max(full.width, full.height) / max_px)
    width, height = (max(1, int(np.ceil(side / downsample - 1e-6))) for side in (full.width, full.height))
    fine = [index for index, level in enumerate(slide.levels) if level.downsample <= downsample * 1.01]
    level = max(fine, key=lambda index: slide.levels[index].downsample)
    ratio, sizes = slide.levels[level].downsample, (slide.levels[level].width, slide.levels[level].height)
    scale = downsample / ratio  # pixels of the level in one of the thumbnail
    side = max(1, int(_BLOCK / scale))
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, side):
        for left in range(0, width, side):
            right, bottom = min(left + side, width), min(top + side, height)
            begins = left * scale, top * scale
            x, y = (min(int(begin), own - 1) for begin, own in zip(begins, sizes, strict=True))
            ends = (min(int(np.ceil(end * scale - 1e-6)), own) for end, own in zip((right, bottom), sizes, strict=True))
            across, down = (max(end - begin, 1) for begin, end in zip((x, y), ends, strict=True))
            pixels = read_around_damage(slide, round(x * ratio), round(y * ratio), across, down, level)
            canvas[top:bottom, left:right] = _reduce(
                pixels, (right - left, bottom - top), (begins[0] - x, begins[1] - y), scale
            )
    return canvas, downsample


def read_around_damage(
    slide: Slide, x: int, y: int, width: int, height: int, level: int = 0
) -> UInt8[np.ndarray, "height width 3"]:
    """Like `Slide.read`, but damaged parts are white, to within 64 pixels.

    Args:
        slide: an open slide.
        x: of the left edge in pixels of full resolution.
        y: of the upper edge.
        width: in pixels of the level.
        height: in pixels of the level.
        level: of the pyramid.
    """
    try:
        return slide.read(x, y, width, height, level)
    except UnreadableTileError:
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    if max(width, height) <= _MIN_BLOCK:
        return pixels
    ratio = slide.levels[level].downsample
    across, down = (max(_MIN_BLOCK, -(-side // 2)) for side in (width, height))
    for top in range(0, height, down):
        for left in range(0, width, across):
            part = pixels[top : top + down, left : left + across]
            corner = x + round(left * ratio), y + round(top * ratio)
            part[...] = read_around_damage(slide, *corner, part.shape[1], part.shape[0], level)
    return pixels


def _reduce(
    pixels: UInt8[np.ndarray, "rows columns 3"], size: tuple[int, int], offset: tuple[float, float], scale: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Average the pixels under each pixel of the result, the first of which begins at `offset`."""
    if pixels.shape[1::-1] == size:
        return pixels
    sides = pixels.shape[1::-1]
    begins = [min(begin, side - 1.0) for begin, side in zip(offset, sides, strict=True)]
    ends = [min(begin + count * scale, side) for begin, count, side in zip(offset, size, sides, strict=True)]
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BOX, box=(*begins, *ends))
    return np.asarray(image)
