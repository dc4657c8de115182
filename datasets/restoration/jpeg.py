"""JPEG compression artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from .noise import span

__all__ = ["Jpeg", "compress"]


def compress(
    image: Float[np.ndarray, "height width channels"], quality: int
) -> Float[np.ndarray, "height width channels"]:
    """Encode as JPEG (4:2:0 for colour) and decode again.

    Args:
        image: in 0-1, RGB or grey.
        quality: 1-100.

    Example:
        >>> compress(np.full((16, 16, 3), 0.5, np.float32), 30).shape
        (16, 16, 3)
    """
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    colour = pixels.shape[2] == 3
    _, written = cv2.imencode(".jpg", pixels[..., ::-1] if colour else pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    read: Any = cv2.imdecode(written, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    read = read[..., ::-1] if colour else read[..., None]
    return read.astype(image.dtype) / 255


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """Compress as JPEG.

    Attributes:
        quality: 1-100 as in libjpeg, or a range that it is drawn from.
        scale: 1; JPEG does not shrink images.

    Raises:
        ValueError: `quality` is out of range, or `scale` is not 1.

    Example:
        >>> Jpeg(quality=10)(np.ones((20, 17, 3), np.float32), np.random.default_rng(0)).shape
        (20, 17, 3)
    """

    quality: int | Sequence[int] = 40
    scale: int = 1

    #: Decoding interpolates colours across blocks.
    margin = 16
    #: Side of the blocks of a colour image; a crop starts at a multiple of it.
    grid = 16

    def __post_init__(self) -> None:
        span("quality", self.quality, 1, 100)
        if self.scale != 1:
            raise ValueError(
                f"JPEG does not shrink images, but the network enlarges by {self.scale}; choose one for x1"
            )

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "height width channels"]:
        """Compress."""
        low, high = span("quality", self.quality, 1, 100)
        return compress(image, int(rng.integers(int(low), int(high) + 1)))
