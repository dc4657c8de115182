"""Images as the bytes of their files.

Pillow writes to a path past Python, and where the disk is full it may leave half a file without an error; bytes that
Python writes fail loudly.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["encode_image"]


def encode_image(
    pixels: Image.Image | UInt8[np.ndarray, "height width 3"], kind: Literal["JPEG", "PNG"], quality: int = 88
) -> bytes:
    """An image as JPEG or PNG.

    Args:
        pixels: of 8 bits a channel.
        kind: of file.
        quality: of JPEG, 1-95.

    Example:
        >>> encode_image(Image.new("RGB", (4, 4)), "PNG")[1:4]
        b'PNG'
    """
    held = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(held, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return held.getvalue()
