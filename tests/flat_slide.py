"""A slide made of an array, for tests that need no file; pytest finds this file by `pythonpath`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from regard.datasets.slides.grid import Grid
from regard.datasets.slides.slide import Level, UnreadableTileError


class FlatSlide:
    """Keeps the `Slide` protocol; its levels are the array and what `Image.reduce` makes of it.

    Args:
        pixels: full resolution.
        downsamples: of the levels.
        mpp: microns per pixel.
        damaged: x, y, width and height of a part that cannot be read.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        downsamples: Sequence[int] = (1, 4),
        mpp: float | None = 0.5,
        damaged: tuple[int, int, int, int] | None = None,
    ) -> None:
        self.path, self.reader, self.vendor, self.objective = "flat.tif", "image", "flat", 20.0
        self.mpp, self.damaged, self.reads = mpp, damaged, list[tuple[int, ...]]()
        self.images = [np.asarray(Image.fromarray(pixels).reduce(factor)) for factor in downsamples]
        self.levels = [
            Level(width=image.shape[1], height=image.shape[0], downsample=float(factor))
            for factor, image in zip(downsamples, self.images, strict=True)
        ]
        self.bounds = (0, 0, pixels.shape[1], pixels.shape[0])

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> np.ndarray:
        self.reads.append((x, y, width, height, level))
        factor = self.levels[level].downsample
        if self.damaged:
            left, top, wide, high = self.damaged
            if x < left + wide and left < x + width * factor and y < top + high and top < y + height * factor:
                raise UnreadableTileError(self.path, "the tile is damaged")
        image = self.images[level]
        rows, columns = round(y / factor) + np.arange(height), round(x / factor) + np.arange(width)
        found = np.full((height, width, 3), 255, np.uint8)
        inside = np.ix_((rows >= 0) & (rows < image.shape[0]), (columns >= 0) & (columns < image.shape[1]))
        found[inside] = image[np.ix_(rows[inside[0][:, 0]], columns[inside[1][0]])]
        return found

    def associated(self) -> dict[str, Image.Image]:
        return {}

    def close(self) -> None:
        pass


def tissue_slide(width: int = 1200, height: int = 900, **named: object) -> FlatSlide:
    """White, with a round piece of pink and violet noise in the middle."""
    return FlatSlide(_tissue(width, height), **named)


@cache
def _tissue(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), 244, np.uint8)
    inside = ((x - width / 2) / (0.42 * width)) ** 2 + ((y - height / 2) / (0.42 * height)) ** 2 < 1
    stain = rng.integers(0, 60, (height // 12 + 1, width // 12 + 1, 1)).repeat(12, 0).repeat(12, 1)[:height, :width]
    pixels[inside] = (np.array([[[215, 150, 195]]]) - stain * np.array([[[1.2, 1.6, 0.7]]])).astype(np.uint8)[inside]
    return pixels


def whole_grid(slide: FlatSlide, side: int = 60, step: int | None = None, mpp: float = 0.5) -> Grid:
    """Patches all over the piece that `tissue_slide` has in its middle."""
    step = step or side
    width, height = slide.levels[0].width, slide.levels[0].height
    y, x = (
        part.ravel()
        for part in np.mgrid[height // 5 : 4 * height // 5 - side : step, width // 5 : 4 * width // 5 - side : step]
    )
    coordinates = np.stack([x, y], axis=1).astype(np.int64)
    tissue = np.ones(len(coordinates))
    return Grid(coordinates, tissue, 60, side, step, mpp * side / 60, mpp, width, height)
