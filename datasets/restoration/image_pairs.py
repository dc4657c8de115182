"""Images for restoration, with 8 or 16 bits: found in folders and matched in pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from ..image_reading import UnreadableImageError, image_suffixes, read_image
from .photographs import HELD_OUT, TRAINING, check_photograph, photograph

__all__ = [
    "SourceImage",
    "as_floats",
    "check_sides",
    "open_hq_images",
    "pair_up",
    "read_pair",
    "read_pixels",
    "to_grey",
]


@dataclass(frozen=True)
class SourceImage:
    """An image that is read on demand.

    Attributes:
        name: its name in tables.
        read: returns its pixels, 8 or 16 bits, (height, width, 3).
        path: the file; None if it does not come from a file.
    """

    name: str
    read: Callable[[], np.ndarray]
    path: Path | None = None


def read_pixels(path: str | os.PathLike[str]) -> Shaped[np.ndarray, "height width 3"]:
    """Read the pixels of a file as RGB with 8 bits, or 16 where the file has them.

    Transparency is composited over white and EXIF rotation applied, as in `regard.datasets.read_image`; images of 16
    bits are PNG or TIFF, without transparency.

    Args:
        path: the file.

    Raises:
        UnreadableImageError: it is missing, damaged or not an image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "16_bits.png")
        ...     _ = cv2.imwrite(str(file), np.full((2, 3, 3), 40_000, np.uint16))
        ...     pixels = read_pixels(file)
        >>> pixels.shape, pixels.dtype, int(pixels[0, 0, 0])
        ((2, 3, 3), dtype('uint16'), 40000)
    """
    if Path(path).suffix.lower() in (".png", ".tif", ".tiff") and _has_16_bits(path):
        pixels = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
        if pixels is not None and pixels.dtype == np.uint16:
            if pixels.ndim == 2:
                return np.repeat(pixels[..., None], 3, axis=2)
            return np.ascontiguousarray(pixels[..., 2::-1])  # OpenCV has blue first
    return np.asarray(read_image(path))


def _has_16_bits(path: str | os.PathLike[str]) -> bool:
    """Whether a file has 16 bits a channel; for a PNG by its header, since Pillow converts its colours to 8 bits."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(26)
        if head.startswith(b"\x89PNG"):
            return len(head) > 25 and head[24] == 16 and head[25] in (0, 2)  # bits; grey or RGB without transparency
        with Image.open(path) as opened:
            bits = getattr(opened, "tag_v2", {}).get(258, (8,))
        return max(bits if isinstance(bits, tuple) else (bits,)) == 16
    except Exception:  # `read_image` reports what is wrong
        return False


def as_floats(pixels: Shaped[np.ndarray, "height width channels"]) -> Float[np.ndarray, "height width channels"]:
    """Convert pixels of 8 or 16 bits to float32 in 0-1; floats are only cast."""
    if np.issubdtype(pixels.dtype, np.floating):
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def to_grey(pixels: Shaped[np.ndarray, "height width 3"]) -> Shaped[np.ndarray, "height width 1"]:
    """Compute the luma of BT.601, rounded for integers.

    Example:
        >>> to_grey(np.array([[[255, 0, 0]]], np.uint8)).tolist()
        [[[76]]]
    """
    grey = pixels @ np.array([[0.299], [0.587], [0.114]])
    return (grey if np.issubdtype(pixels.dtype, np.floating) else np.rint(grey)).astype(pixels.dtype)


def open_hq_images(source: str, split: Literal["train", "test"] = "train") -> list[SourceImage]:
    """Open high-quality images.

    Args:
        source: `photographs`, those bundled with scikit-image and scikit-learn; some of them, `photographs:cat,china`;
            a folder, searched recursively; or a file.
        split: of `photographs`, those to train on or those held out.

    Raises:
        ValueError: there is no such folder, it has no images, or a photograph is unknown.

    Example:
        >>> [image.name for image in open_hq_images("photographs", "test")]
        ['astronaut', 'cat', 'coffee']
    """
    name, _, chosen = source.partition(":")
    if name == "photographs":
        names: Sequence[str] = HELD_OUT if split == "test" else TRAINING
        if chosen:
            names = [name.strip() for name in chosen.split(",")]
            for name in names:
                check_photograph(name)
        return [SourceImage(name, partial(photograph, name)) for name in names]
    folder = Path(source)
    if folder.is_file():
        return [SourceImage(folder.name, partial(read_pixels, folder), folder)]
    if not folder.is_dir():
        raise ValueError(f"{source!r} is neither a folder of images, an image, nor 'photographs'")
    suffixes = image_suffixes()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise ValueError(f"there are no images in {folder} or its folders; an image ends in .png, .jpg, .tif, ...")
    return [SourceImage(path.relative_to(folder).as_posix(), partial(read_pixels, path), path) for path in paths]


def check_sides(images: Sequence[SourceImage], min_side: int) -> None:
    """Check by their headers that files can be opened and are large enough; only the first 10,000 of them.

    Args:
        images: those that are not files are skipped.
        min_side: minimum width and height in pixels.

    Raises:
        ValueError: some are not images or too small; up to three are named.
    """
    wrong = []
    for image in images[:10_000]:
        if image.path is None:
            continue
        try:
            with Image.open(image.path) as opened:
                width, height = opened.size
        except Exception as error:  # on damaged files the readers of Pillow raise nearly anything
            wrong.append(f"{image.name} (not an image: {error})")
            continue
        if min(width, height) < min_side:
            wrong.append(f"{image.name} ({width} x {height})")
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(images)} images cannot be used, their sides must have {min_side} pixels: "
            f"{', '.join(wrong[:3])}. Remove them, or choose smaller crops"
        )


def pair_up(hq: Sequence[SourceImage], lq: Sequence[SourceImage], scale: int) -> list[tuple[SourceImage, SourceImage]]:
    """Match high- and low-quality images by the names of their files.

    Names may differ in their suffix and, as in DIV2K and the test sets of papers, by an x2 at the end of the name:
    0001.png matches 0001x2.png, baby.png with baby_x2.png or babyx2.png.

    Args:
        hq: high-quality images.
        lq: low-quality images.
        scale: side of the former over that of the latter.

    Raises:
        ValueError: an image has no partner; up to three are named.

    Example:
        >>> hq, lq = (SourceImage(name, np.empty) for name in ("a/0801.png", "a/0801x2.png"))
        >>> [(high.name, low.name) for high, low in pair_up([hq], [lq], 2)]
        [('a/0801.png', 'a/0801x2.png')]
    """
    found = {_stem(image.name): image for image in lq}
    pairs, unmatched = [], []
    for image in hq:
        stem = _stem(image.name)
        endings = ("", f"x{scale}", f"_x{scale}", f"_LRBI_x{scale}")
        partner = next((found[stem + ending] for ending in endings if stem + ending in found), None)
        if partner is None:
            unmatched.append(image.name)
        else:
            pairs.append((image, partner))
    if unmatched:
        raise ValueError(
            f"{len(unmatched)} of {len(hq)} images have no partner among the {len(lq)} others: "
            f"{', '.join(unmatched[:3])}; partners have the same name, or one that ends in x{scale}"
        )
    return pairs


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def read_pair(hq: SourceImage, lq: SourceImage, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Read both images of a pair, the high-quality one cropped to a multiple of `scale`.

    Raises:
        UnreadableImageError: their sizes do not fit each other.
    """
    large, small = hq.read(), lq.read()
    height, width = small.shape[:2]
    if large.shape[0] // scale not in (height, height - 1) or large.shape[1] // scale not in (width, width - 1):
        sizes = f"{large.shape[1]} x {large.shape[0]} pixels, {lq.name} has {width} x {height}"
        raise UnreadableImageError(hq.name, f"it has {sizes}, not {scale} times the size")
    height, width = min(height, large.shape[0] // scale), min(width, large.shape[1] // scale)
    return large[: height * scale, : width * scale], small[:height, :width]
