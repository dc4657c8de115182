"""A plain image as a slide of one level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from .resolution import from_resolution
from .slide import Level, UnreadableSlideError, UnreadableTileError

__all__ = ["ImageSlide"]

#: Pixels of an image that is decoded at once, which needs 560 MB.
_MAX_PIXELS = 80_000_000

#: Pillow's modes that convert to RGB without loss of what is visible.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


class ImageSlide:
    """A plain image, read by Pillow; see `Slide` for the attributes.

    It is decoded at the first read and stays in memory until `close`.

    Args:
        path: the file.
        mpp: microns per pixel at full resolution; by default from the file.

    Raises:
        UnreadableSlideError: not an image, or one of more than 80 million pixels or 8 bits per channel.
    """

    reader = "image"

    def __init__(self, path: str | Path, *, mpp: float | None = None) -> None:
        self.path = str(path)
        self._pixels: np.ndarray | None = None
        too_large = (
            f"plain images may have up to {_MAX_PIXELS // 10**6} million pixels; convert it to a tiled pyramid: "
            "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"
        )
        try:
            with Image.open(self.path) as image:
                (width, height), mode = image.size, image.mode
                dots = image.info.get("dpi", (0, 0))
                self.vendor = str(image.format).lower()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnreadableSlideError(self.path, f"{error}; {too_large}") from error
        except UnidentifiedImageError as error:
            raise UnreadableSlideError(self.path, "Pillow does not know its format") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableSlideError(self.path, str(error)) from error
        if width * height > _MAX_PIXELS:
            raise UnreadableSlideError(self.path, f"it has {width} x {height} pixels; {too_large}")
        if mode not in _MODES:
            raise UnreadableSlideError(self.path, f"its pixels are of Pillow's mode {mode!r}; convert it to 8-bit RGB")
        self.mpp = mpp if mpp is not None else from_resolution(float(dots[0]), float(dots[1]), 2)
        self.objective: float | None = None
        self.levels: Sequence[Level] = [Level(width, height, 1.0)]
        self.bounds = (0, 0, width, height)

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> UInt8[np.ndarray, "height width 3"]:
        """Read a rectangle in RGB; see `Slide.read`."""
        whole = self._whole()
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        part = whole[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        pixels[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]] = part
        return pixels

    def associated(self) -> dict[str, Image.Image]:
        """An empty dictionary; plain images have none."""
        return {}

    def close(self) -> None:
        """Release the pixels; the next read decodes the file again."""
        self._pixels = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}

    def _whole(self) -> UInt8[np.ndarray, "height width 3"]:
        if self._pixels is None:
            try:
                with Image.open(self.path) as image:
                    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
                        rgba = image.convert("RGBA")
                        white = Image.new("RGBA", rgba.size, "white")
                        self._pixels = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
                    else:
                        self._pixels = np.asarray(image.convert("RGB"))
            except (OSError, ValueError, SyntaxError) as error:
                raise UnreadableTileError(self.path, str(error)) from error
        return self._pixels
