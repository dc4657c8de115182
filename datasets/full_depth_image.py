"""Images from a file and back into one with all that belongs to them: 16 bits, transparency, colour profile, EXIF.

`regard.datasets.read_image` gives what a network is trained on, 8 bits of grey or RGB. Here nothing is lost that a
restored image should have. Pixels stay as they lie in the file, and the EXIF data that says how to turn them goes
with them.
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

#: Most pixels of an image; Pillow refuses twice its own figure too.
MOST = 2 * (Image.MAX_IMAGE_PIXELS or 2**26)

#: EXIF tags of a TIFF that go along: words, makes, orientation, dates, and what is below them.
_TOLD = (270, 271, 272, 274, 305, 306, 315, 33432, 34665, 34853)


@dataclass(frozen=True)
class FullDepthImage:
    """What a file holds.

    Attributes:
        pixels: 8 or 16 bits, grey or red, green and blue.
        alpha: opacity with as many bits, or None.
        profile: ICC profile of `pixels`.
        exif: EXIF data as its file has it.
        notes: what was changed, in words.
    """

    pixels: Shaped[np.ndarray, "height width channels"]
    alpha: Shaped[np.ndarray, "height width"] | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def read_full_depth_image(path: Path) -> FullDepthImage:
    """Read an image.

    Palettes become RGB, CMYK too (by its profile where it has one), bits become grey of 8 bits.

    Args:
        path: a file in one of Pillow's formats.

    Raises:
        UnreadableImageError: it is missing, empty, damaged, no image, has more than one frame, too many pixels, or
            numbers that are no colours.

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
            if image.width * image.height > MOST:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST / 1e6:.0f} million")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # cameras put a preview behind the photograph
                raise ValueError(f"it has {frames} frames; save each as an image of its own")
            profile = image.info.get("icc_profile") or None
            deep = _has_16_bits(path, image)
            exif = _exif(image, turned=image.format == "TIFF" and not deep)
            if deep:
                return _deep(path, image, profile, exif)
            return _shallow(image, profile, exif)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(str(path), f"it has more than {MOST / 1e6:.0f} million pixels") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError(str(path), "it is no image, or of a kind that Pillow cannot read") from error
    except Exception as error:  # on damaged files the readers of Pillow raise nearly anything
        raise UnreadableImageError(str(path), str(error).partition("\n")[0] or type(error).__name__) from error


def _exif(image: Image.Image, *, turned: bool) -> bytes | None:
    """What says something about the image; a TIFF keeps how its pixels lie in the same place.

    Pillow turns what it reads of a TIFF by itself: then the orientation is no longer true.
    """
    with suppress(Exception):  # damaged EXIF data says nothing against the pixels
        found = image.getexif()
        for tag in set(found) - set(_TOLD) if image.format == "TIFF" else ():
            del found[tag]
        if turned:
            found.pop(274, None)
        return (image.info.get("exif") or found.tobytes()) if found else None
    return None


def _has_16_bits(path: Path, image: Image.Image) -> bool:
    """Whether a channel has 16 bits, which Pillow shows for grey only."""
    if image.mode.startswith("I;16"):
        return True
    if image.format == "PNG":
        return _png_header(path)[24] == 16
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, 8)
        return max(bits if isinstance(bits, tuple) else (bits,)) == 16
    return False


def _png_header(path: Path) -> bytes:
    """The first bytes: the 24th, counted from 0, is the number of bits, the next one the type of colour."""
    with path.open("rb") as file:
        return file.read(26)


def _deep(path: Path, image: Image.Image, profile: bytes | None, exif: bytes | None) -> FullDepthImage:
    """By OpenCV, which has blue first and makes no difference between grey and transparent grey."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or image.mode == "CMYK":
        raise ValueError("its 16 bits cannot be read; save it as a PNG or TIFF of grey or RGB")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = pixels.shape[2]
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None
    colours = pixels[..., :1] if channels < 3 else pixels[..., 2::-1]
    if image.format == "PNG" and _png_header(path)[25] == 4:  # grey and alpha, of which OpenCV makes four channels
        colours = colours[..., :1]
    return FullDepthImage(np.ascontiguousarray(colours), alpha, profile, exif)


def _shallow(image: Image.Image, profile: bytes | None, exif: bytes | None) -> FullDepthImage:
    notes: tuple[str, ...] = ()
    image.load()
    mode = image.mode
    if mode in ("I", "F"):
        raise ValueError("its numbers are no colours of 8 or 16 bits; save it as a PNG of 8 or 16 bits")
    if mode == "CMYK":
        image, found = _to_srgb(image, profile)
        profile, notes = None, (f"CMYK became RGB {found}",)
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
    """From CMYK, and by what."""
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted, "by its profile"
    return image.convert("RGB"), "without a profile"
