"""Stained tissue as two textures: how much haematoxylin and how much eosin lies where.

By the law of Beer and Lambert the optical densities of a pixel are the amounts of its stains times the colours of the
stains (Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291-299). So a real texture can be given another stain, and
two textures the same mean amounts.

The embedded textures: an H&E slide of the OpenSlide project, and an H&E image of dense, large nuclei. Each is divided
into a part for training and a part for testing that have no pixel in common.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from .opening import open_slide

__all__ = ["EMBEDDED_SLIDE", "STAINS", "Textures", "amounts_of", "load_textures", "real_bands", "stained"]

Part = Literal["train", "test"]

_EMBEDDED = Path(str(files(__package__))) / "embedded"
#: A real slide: a part of the OpenSlide project's CMU-1, 2220 x 2967 pixels at 0.499 um/px, H&E.
EMBEDDED_SLIDE = _EMBEDDED / "cmu_small_region.svs"

#: Optical density of red, green and blue for one unit of haematoxylin and of eosin: about those of the embedded slide.
STAINS = np.array([[0.70, 0.62, 0.35], [0.17, 0.91, 0.38]])

#: Side of a piece of texture in pixels of 0.5 um.
PIECE = 80
_BANDS = 8
#: The image of nuclei is shrunk so that they are 7-10 um across at 0.5 um a pixel; its own resolution is not known.
_SHRUNK = 0.6
_FOR_TRAINING = 0.6


@dataclass(frozen=True)
class Textures:
    """Square pieces of texture, as amounts of the two stains.

    Attributes:
        tissue: of the real slide, in the order of their haematoxylin: connective tissue first, epithelium last.
        lesion: of the dense nuclei, with the mean and deviation of both stains that `tissue` has as a whole.
    """

    tissue: Float[np.ndarray, "pieces side side 2"]
    lesion: Float[np.ndarray, "others side side 2"]


def amounts_of(pixels: UInt8[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 2"]:
    """Haematoxylin and eosin of each pixel, at least 0.

    Example:
        >>> amounts_of(np.full((1, 3), 255, np.uint8))
        array([[0., 0.]], dtype=float32)
    """
    density = -np.log((pixels.astype(np.float32) + 1) / 256)
    return np.clip(density @ np.linalg.pinv(STAINS).astype(np.float32), 0, None)


def stained(
    amounts: Float[np.ndarray, "*shape 2"], stains: Float[np.ndarray, "2 3"] = STAINS, white: float = 244.0
) -> Float[np.ndarray, "*shape 3"]:
    """The colours of these amounts on a background, 0-255, not rounded."""
    return white * np.exp(-amounts @ stains.astype(np.float32))


@cache
def load_textures(part: Part) -> Textures:
    """The embedded textures of one part.

    Args:
        part: train or test. Of the slide every other one of eight bands, of the image its left 60 % or the rest.
    """
    tissue = np.concatenate([_pieces(band, PIECE // 4) for band in real_bands(part)])
    tissue = tissue[np.argsort(tissue[..., 0].mean((1, 2)), kind="stable")]
    with Image.open(_EMBEDDED / "dense_nuclei.jpg") as image:
        nuclei = np.asarray(image.convert("RGB"))
    border = round(nuclei.shape[1] * _FOR_TRAINING)
    nuclei = nuclei[:, :border] if part == "train" else nuclei[:, border:]
    nuclei = cv2.resize(nuclei, None, fx=_SHRUNK, fy=_SHRUNK, interpolation=cv2.INTER_AREA)
    lesion = _pieces(nuclei, 8)
    mean, std = lesion.mean((0, 1, 2)), lesion.std((0, 1, 2))
    lesion = (lesion - mean) / std * tissue.std((0, 1, 2)) + tissue.mean((0, 1, 2))
    return Textures(tissue, np.clip(lesion, 0, None))


def real_bands(part: Part) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The bands of the embedded slide that a part may use, from the top; there are four, of 370 rows each."""
    with closing(open_slide(EMBEDDED_SLIDE)) as slide:
        level = slide.levels[0]
        pixels = slide.read(0, 0, level.width, level.height)
    height = level.height // _BANDS
    return [pixels[one * height : (one + 1) * height] for one in range(0 if part == "train" else 1, _BANDS, 2)]


def _pieces(pixels: UInt8[np.ndarray, "height width 3"], step: int) -> Float[np.ndarray, "pieces side side 2"]:
    """The pieces of an image that are full of tissue."""
    amounts = amounts_of(pixels)
    covered = (cv2.blur(amounts.sum(-1), (15, 15)) > 0.25).astype(np.float32)
    height, width = covered.shape
    corners = [(y, x) for y in range(0, height - PIECE + 1, step) for x in range(0, width - PIECE + 1, step)]
    cut = [(slice(y, y + PIECE), slice(x, x + PIECE)) for y, x in corners]
    return np.stack([amounts[place] for place in cut if covered[place].mean() > 0.95])
