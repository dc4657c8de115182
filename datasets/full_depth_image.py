"""Read an image at full depth: 16 bits, transparency, colour profile and EXIF data.

`regard.datasets.read_image` gives what a network is trained on, 8 bits of grey or RGB. Here everything is kept that a
restored image should have. Pixels are not rotated; the orientation stays in the EXIF data.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageCms

from .image_reading import UnreadableImageError

__all__ = ["FullDepthImage", "read_full_depth_image"]

#: Maximum number of pixels; Pillow too refuses more than twice its limit.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**26)

#: EXIF tags of a TIFF that are kept: descriptions, camera, orientation, dates, and sub-directories.
_KEPT_TAGS = (270, 271, 272, 274, 305, 306, 315, 33432, 34665, 34853)


@dataclass(frozen=True)
class FullDepthImage:
    """The contents of an image file.

    Attributes:
        pixels: 8 or 16 bits, grey or RGB.
        alpha: opacity with the same number of bits, or None.
        profile: ICC profile of `pixels`.
        exif: EXIF data as in the file.
        notes: descriptions of conversions.
    """

    pixels: Shaped[np.ndarray, "height width channels"]
    alpha: Shaped[np.ndarray, "height width"] | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def read_full_depth_image(path: Path) -> FullDepthImage:
    """Read an image with everything that belongs to it.

    Palettes and CMYK (by its profile, if any) are converted to RGB, 1 bit to 8 bits of grey.

    Args:
        path: a file in one of Pillow's formats.

    Raises:
        UnreadableImageError: it is missing, empty, damaged or not an image, has several frames, too many pixels, or
            values that are not colours.

    Example:
        >>> Image.new("LA", (4, 2), (7, 128)).save("example.png")
        >>> image = read_full_depth_image(Path("example.png"))
        >>> image.pixels.shape, int(image.alpha[0, 0])
        ((2, 4, 1), 128)
    """
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"its {image.width} x {image.height} pixels are more than {MAX_PIXELS / 1e6:.0f} million"
                )
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # cameras append a preview
                raise ValueError(f"it has {frames} frames; save each as a separate image")
            profile = image.info.get("icc_profile") or None
            has_16_bits = _has_16_bits(path, image)
            exif = _exif(image, rotated=image.format == "TIFF" and not has_16_bits)
            if has_16_bits:
                return _read_16_bits(path, image, profile, exif)
            return _read_8_bits(image, profile, exif)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(str(path), f"it has more than {MAX_PIXELS / 1e6:.0f} million pixels") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError(str(path), "it is not an image, or of a format that Pillow cannot read") from error
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        raise UnreadableImageError(str(path), str(error).partition("\n")[0] or type(error).__name__) from error


def _exif(image: Image.Image, *, rotated: bool) -> bytes | None:
    """Return the EXIF data; of a TIFF without the tags that describe the storage of pixels.

    Pillow rotates TIFF images itself, after which the orientation is no longer valid.
    """
    with suppress(Exception):  # damaged EXIF data does not affect the pixels
        found = image.getexif()
        for tag in set(found) - set(_KEPT_TAGS) if image.format == "TIFF" else ():
            del found[tag]
        if rotated:
            found.pop(274, None)
        return (image.info.get("exif") or found.tobytes()) if found else None
    return None


def _has_16_bits(path: Path, image: Image.Image) -> bool:
    """Check whether a channel has 16 bits, which Pillow reports for grey only."""
    if image.mode.startswith("I;16"):
        return True
    if image.format == "PNG":
        return _png_header(path)[24] == 16
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, 8)
        return max(bits if isinstance(bits, tuple) else (bits,)) == 16
    return False


def _png_header(path: Path) -> bytes:
    """Read the header; byte 24 (from 0) is the bit depth, byte 25 the colour type."""
    with path.open("rb") as file:
        return file.read(26)


def _read_16_bits(path: Path, image: Image.Image, profile: bytes | None, exif: bytes | None) -> FullDepthImage:
    """Read 16 bits with OpenCV, whose channels are BGR, and which expands grey with alpha to four channels."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or image.mode == "CMYK":
        raise ValueError("its 16 bits cannot be read; save it as a PNG or TIFF of grey or RGB")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = pixels.shape[2]
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None
    colours = pixels[..., :1] if channels < 3 else pixels[..., 2::-1]
    if image.format == "PNG" and _png_header(path)[25] == 4:  # grey with alpha
        colours = colours[..., :1]
    return FullDepthImage(np.ascontiguousarray(colours), alpha, profile, exif)


def _read_8_bits(image: Image.Image, profile: bytes | None, exif: bytes | None) -> FullDepthImage:
    notes: tuple[str, ...] = ()
    image.load()
    mode = image.mode
    if mode in ("I", "F"):
        raise ValueError("its values are not colours of 8 or 16 bits; save it as a PNG with 8 or 16 bits")
    if mode == "CMYK":
        image, found = _to_srgb(image, profile)
        profile, notes = None, (f"CMYK was converted to RGB {found}",)
    elif mode == "P" or (mode in ("L", "RGB") and image.has_transparency_data):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.array(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] in (2, 4):
        return FullDepthImage(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy(), profile, exif, notes)
    return FullDepthImage(pixels, None, profile, exif, notes)


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """Convert CMYK to RGB; also return how."""
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted, "by its profile"
    return image.convert("RGB"), "without a profile"
