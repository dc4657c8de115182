"""A slide that is an array, with as many levels as one likes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from regard.datasets.slides.slide import Level


@dataclass
class ArraySlide:
    """Keeps what `Slide` promises."""

    pixels: Any
    mpp: float | None = 0.5
    objective: float | None = None
    downsamples: tuple[int, ...] = (1,)
    bounds: tuple[int, int, int, int] = (0, 0, 0, 0)
    path: str = "slide.svs"
    reader: str = "image"
    vendor: str = "array"
    tile: tuple[int, int] | None = None
    levels: list[Level] = field(init=False)

    def __post_init__(self) -> None:
        height, width = self.pixels.shape[:2]
        self.levels = [Level(width // one, height // one, float(one), self.tile) for one in self.downsamples]
        if not any(self.bounds):
            self.bounds = (0, 0, width, height)

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> UInt8[np.ndarray, "height width 3"]:
        by = int(self.levels[level].downsample)
        white = np.full((height, width, 3), 255, np.uint8)
        left, top = x // by, y // by
        pixels = self.pixels[::by, ::by]
        part = pixels[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        below, right = max(0, -top), max(0, -left)
        white[below : below + part.shape[0], right : right + part.shape[1]] = part
        return white

    def associated(self) -> dict[str, Image.Image]:
        return {}

    def close(self) -> None:
        pass
