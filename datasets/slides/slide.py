"""The interface of a whole slide, which every reader implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["Level", "Slide", "UnreadableSlideError", "UnreadableTileError"]


@dataclass(frozen=True)
class Level:
    """One image of the pyramid.

    Attributes:
        width: in its own pixels.
        height: in its own pixels.
        downsample: pixels of full resolution that one of its pixels spans, 1 for the first level.
        tile: width and height of its tiles in its own pixels, if it has tiles.
    """

    width: int
    height: int
    downsample: float
    tile: tuple[int, int] | None = None


@runtime_checkable
class Slide(Protocol):
    """An open slide.

    It can be pickled; the copy opens the file again. Use one slide in one thread at a time.

    Attributes:
        path: the file.
        reader: tiff, openslide or image.
        levels: full resolution first.
        mpp: microns per pixel at full resolution, if known.
        objective: magnification of the scanner's objective, if known.
        vendor: as OpenSlide names it, or the kind of file.
        bounds: x, y, width and height in pixels of full resolution of the scanned area.
    """

    path: str
    reader: str
    levels: Sequence[Level]
    mpp: float | None
    objective: float | None
    vendor: str
    bounds: tuple[int, int, int, int]

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> UInt8[np.ndarray, "height width 3"]:
        """Read a rectangle in RGB; transparent pixels, and those outside the slide, are white.

        Args:
            x: of the left edge, in pixels of full resolution; may be outside.
            y: of the upper edge.
            width: in pixels of the level.
            height: in pixels of the level.
            level: of the pyramid.

        Raises:
            UnreadableTileError: data of the rectangle are damaged; other parts can still be read.
        """

    def associated(self) -> dict[str, Image.Image]:
        """Associated images that can be read, such as label, macro and thumbnail, by name."""

    def close(self) -> None:
        """Close the file; the next read opens it again."""


class UnreadableSlideError(ValueError):
    """A file that cannot be opened as a slide.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"cannot read the slide {path}: {reason}" if reason else path)

    def __reduce__(self) -> tuple[type[UnreadableSlideError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class UnreadableTileError(ValueError):
    """A part of a slide that cannot be decoded; others may be.

    Args:
        path: the file.
        reason: what is wrong, and where.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"cannot read a part of the slide {path}: {reason}" if reason else path)

    def __reduce__(self) -> tuple[type[UnreadableTileError], tuple[str, str]]:
        return type(self), (self.path, self.reason)
