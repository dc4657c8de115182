"""Images for restoration: files or arrays with all their bits, found in folders and matched in pairs."""

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

from ..images import UnreadableImageError, image_suffixes, read_image
from .photographs import HELD_OUT, PHOTOGRAPHS, TRAINING, photograph

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
    """A image that is read when it is asked for.

    Attributes:
        name: what it is called in tables.
        read: gives its pixels, 8 or 16 bits, (height, width, 3).
        path: the file; None for what is none.
    """

    name: str
    read: Callable[[], np.ndarray]
    path: Path | None = None


def read_pixels(path: str | os.PathLike[str]) -> Shaped[np.ndarray, "height width 3"]:
    """The pixels of a file as RGB of 8 bits, or of 16 where the file has as many.

    Transparency is laid over white and EXIF rotation applied, as in `regard.datasets.read_image`; images of 16 bits
    are PNG or TIFF, without transparency.

    Args:
        path: the file.

    Raises:
        UnreadableImageError: it is missing, damaged or no image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "deep.png")
        ...     _ = cv2.imwrite(str(file), np.full((2, 3, 3), 40_000, np.uint16))
        ...     pixels = read_pixels(file)
        >>> pixels.shape, pixels.dtype, int(pixels[0, 0, 0])
        ((2, 3, 3), dtype('uint16'), 40000)
    """
    if Path(path).suffix.lower() in (".png", ".tif", ".tiff") and _is_deep(path):
        pixels = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
        if pixels is not None and pixels.dtype == np.uint16:
            if pixels.ndim == 2:
                return np.repeat(pixels[..., None], 3, axis=2)
            return np.ascontiguousarray(pixels[..., 2::-1])  # OpenCV has blue first
    return np.asarray(read_image(path))


def _is_deep(path: str | os.PathLike[str]) -> bool:
    """Whether a file has 16 bits a channel. Pillow shows colours of a PNG as 8 bits: its header says what they are."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(26)
        if head.startswith(b"\x89PNG"):
            return len(head) > 25 and head[24] == 16 and head[25] in (0, 2)  # bits; grey or RGB without transparency
        with Image.open(path) as opened:
            bits = getattr(opened, "tag_v2", {}).get(258, (8,))
        return max(bits if isinstance(bits, tuple) else (bits,)) == 16
    except Exception:  # `read_image` says what is wrong with it
        return False


def as_floats(pixels: Shaped[np.ndarray, "height width channels"]) -> Float[np.ndarray, "height width channels"]:
    """Pixels of 8 or 16 bits as float32 in 0-1; floats as they are."""
    if np.issubdtype(pixels.dtype, np.floating):
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def to_grey(pixels: Shaped[np.ndarray, "height width 3"]) -> Shaped[np.ndarray, "height width 1"]:
    """The luma of BT.601, rounded for whole numbers.

    Example:
        >>> to_grey(np.array([[[255, 0, 0]]], np.uint8)).tolist()
        [[[76]]]
    """
    grey = pixels @ np.array([[0.299], [0.587], [0.114]])
    return (grey if np.issubdtype(pixels.dtype, np.floating) else np.rint(grey)).astype(pixels.dtype)


def open_hq_images(source: str, part: Literal["train", "test"] = "train") -> list[SourceImage]:
    """The images that a word means.

    Args:
        source: `photographs`, those that come with the package's dependencies, or `photographs:cat,china`; a folder,
            searched with all its folders; or a file.
        part: of `photographs`, those to learn from or those held out.

    Raises:
        ValueError: there is no such folder, it has no images, or no such photograph is known.

    Example:
        >>> [image.name for image in open_hq_images("photographs", "test")]
        ['astronaut', 'cat', 'coffee']
    """
    word, _, chosen = source.partition(":")
    if word == "photographs":
        names: Sequence[str] = HELD_OUT if part == "test" else TRAINING
        if chosen:
            names = [name.strip() for name in chosen.split(",")]
            unknown = [name for name in names if name not in PHOTOGRAPHS]
            if unknown:
                raise ValueError(f"no photograph is called {unknown[0]!r}; there are {', '.join(PHOTOGRAPHS)}")
        return [SourceImage(name, partial(photograph, name)) for name in names]
    folder = Path(source)
    if folder.is_file():
        return [SourceImage(folder.name, partial(read_pixels, folder), folder)]
    if not folder.is_dir():
        raise ValueError(f"{source} is neither a folder of images nor an image nor the word photographs")
    suffixes = image_suffixes()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise ValueError(f"no images are in {folder} or its folders; an image ends in .png, .jpg, .tif, ...")
    return [SourceImage(path.relative_to(folder).as_posix(), partial(read_pixels, path), path) for path in paths]


def check_sides(images: Sequence[SourceImage], least: int) -> None:
    """See that files can be opened and have enough pixels, by their headers; the first 10,000 of them.

    Args:
        images: those without a file are passed over.
        least: least width and height in pixels.

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
            wrong.append(f"{image.name} (no image: {error})")
            continue
        if min(width, height) < least:
            wrong.append(f"{image.name} ({width} x {height})")
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(images)} images cannot be used, their sides must have {least} pixels: "
            f"{', '.join(wrong[:3])}. Take them away, or choose smaller crops"
        )


def pair_up(
    high: Sequence[SourceImage], low: Sequence[SourceImage], scale: int
) -> list[tuple[SourceImage, SourceImage]]:
    """Match good images to spoilt ones by the names of their files.

    Names may differ in their suffix and, as in DIV2K and the test sets of papers, by an x2 at the end of the name:
    0001.png goes with 0001x2.png, baby.png with baby_x2.png or babyx2.png.

    Args:
        high: what should come out.
        low: what goes in.
        scale: sides of the former over those of the latter.

    Raises:
        ValueError: an image has no partner; up to three are named.

    Example:
        >>> one, two = (SourceImage(name, np.empty) for name in ("a/0801.png", "a/0801x2.png"))
        >>> [(good.name, bad.name) for good, bad in pair_up([one], [two], 2)]
        [('a/0801.png', 'a/0801x2.png')]
    """
    found = {_stem(image.name): image for image in low}
    pairs, alone = [], []
    for image in high:
        stem = _stem(image.name)
        endings = ("", f"x{scale}", f"_x{scale}", f"_LRBI_x{scale}")
        partner = next((found[stem + ending] for ending in endings if stem + ending in found), None)
        if partner is None:
            alone.append(image.name)
        else:
            pairs.append((image, partner))
    if alone:
        raise ValueError(
            f"{len(alone)} of {len(high)} images have no partner among the {len(low)} others: "
            f"{', '.join(alone[:3])}; partners have the same name, or one that ends in x{scale}"
        )
    return pairs


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def read_pair(high: SourceImage, low: SourceImage, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair, the good one without the rows and columns that are no multiple of `scale`.

    Raises:
        UnreadableImageError: their sizes do not fit each other.
    """
    good, bad = high.read(), low.read()
    height, width = bad.shape[:2]
    if good.shape[0] // scale not in (height, height - 1) or good.shape[1] // scale not in (width, width - 1):
        sizes = f"{good.shape[1]} x {good.shape[0]} pixels, {low.name} has {width} x {height}"
        raise UnreadableImageError(high.name, f"it has {sizes}: not {scale} times as many")
    height, width = min(height, good.shape[0] // scale), min(width, good.shape[1] // scale)
    return good[: height * scale, : width * scale], bad[:height, :width]
