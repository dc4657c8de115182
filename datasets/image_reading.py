"""Read an image file of any colour mode into 8 bits of grey or RGB."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

__all__ = ["UnreadableImageError", "image_suffixes", "read_image", "to_channels"]


@runtime_checkable
class BinaryFile(Protocol):
    """An open file of bytes, on disk or in memory."""

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, or all."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Set the position."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...


class UnreadableImageError(ValueError):
    """A file that cannot be read as an image.

    Args:
        path: the file, or another name of the image.
        reason: what is wrong with it.

    Example:
        >>> str(UnreadableImageError("cats/7.jpg", "the file is empty"))
        'cannot read the image cats/7.jpg: the file is empty'
    """

    def __init__(self, path: str | os.PathLike[str], reason: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        # torch re-raises the error of a worker with one argument, the text.
        super().__init__(f"cannot read the image {self.path}: {reason}" if reason else self.path)

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


def image_suffixes() -> frozenset[str]:
    """List the file suffixes that Pillow can open, in lower case with the dot.

    Example:
        >>> ".jpg" in image_suffixes(), ".csv" in image_suffixes()
        (True, False)
    """
    Image.init()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def read_image(file: str | os.PathLike[str] | BinaryFile, channels: Literal[1, 3] = 3) -> Image.Image:
    """Read and decode an image; of an animation, the first frame.

    The rotation in its EXIF data is applied. See `to_channels` for the conversion of colour modes.

    Args:
        file: a path or an open binary file.
        channels: 1 for grey (Pillow's mode "L"), 3 for "RGB".

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, not an image, or has too many pixels.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("LA", (4, 2), (0, 0)).save(file, "PNG")  # black, but fully transparent
        >>> image = read_image(file, channels=3)
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (4, 2), (255, 255, 255))
    """
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else str(getattr(file, "name", "<file>"))
    try:
        with Image.open(file) as image:  # type: ignore[arg-type]
            image.load()
            upright: Image.Image = image
            with contextlib.suppress(Exception):  # damaged EXIF data does not affect the pixels
                upright = ImageOps.exif_transpose(image)
            return to_channels(upright, channels)
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        raise UnreadableImageError(name, _reason(error, file)) from error


def to_channels(image: Image.Image, channels: Literal[1, 3]) -> Image.Image:
    """Convert to 8 bits of grey or RGB.

    Transparency is composited over white. Integers of 16 bits are scaled by 1/257. Floats are assumed to span 0-1,
    0-255 or 0-65535, the first range that holds all values of the image.

    Args:
        image: any colour mode that Pillow converts to RGB.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: values beyond these ranges, or a colour mode without a conversion.

    Example:
        >>> to_channels(Image.new("I;16", (1, 1), 257 * 9), 1).getpixel((0, 0))
        9
    """
    mode = {1: "L", 3: "RGB"}[channels]
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    elif image.mode in ("P", "CMYK"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    tops = (1.0, 255.0, 65535.0) if image.mode.startswith("F") else (65535.0,)
    top = next((top for top in tops if high <= top), None)
    if low < 0 or top is None:
        raise ValueError(f"its values {low:g} to {high:g} leave the range 0 to 65535; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def _reason(error: Exception, file: str | os.PathLike[str] | BinaryFile) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"{error}; if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, Image.UnidentifiedImageError):
        empty = isinstance(file, str | os.PathLike) and Path(file).stat().st_size == 0
        return "the file is empty" if empty else "it is not an image that Pillow can read"
    return str(error) or type(error).__name__
