"""Textures of stained tissue, as amounts of haematoxylin and eosin per pixel.

By the Beer-Lambert law the optical densities of a pixel are the amounts of its stains times the stain vectors (Ruifrok
& Johnston 2001, Anal Quant Cytol Histol 23:291-299). So a real texture can be rendered with other stain vectors, and
two textures can be given the same mean amounts.

The embedded textures: an H&E slide of the OpenSlide project, and an H&E image of dense, large nuclei. Each is split
into a training part and a test part without common pixels.
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

#: Stain vectors: optical density of red, green and blue for one unit of haematoxylin and of eosin.
STAINS = np.array([[0.70, 0.62, 0.35], [0.17, 0.91, 0.38]])

#: Side of a crop of texture in pixels of 0.5 um.
CROP_PX = 80
_BANDS = 8
#: The image of nuclei is reduced so that they are 7-10 um wide at 0.5 um per pixel; its resolution is unknown.
_NUCLEI_SCALE = 0.6
_TRAIN_SHARE = 0.6


@dataclass(frozen=True)
class Textures:
    """Square crops of texture, as amounts of the two stains.

    Attributes:
        tissue: of the real slide, sorted by haematoxylin: connective tissue first, epithelium last.
        lesion: of the dense nuclei, with the mean and standard deviation of both stains in `tissue`.
    """

    tissue: Float[np.ndarray, "crops side side 2"]
    lesion: Float[np.ndarray, "others side side 2"]


def amounts_of(pixels: UInt8[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 2"]:
    """Amounts of haematoxylin and eosin of each pixel, at least 0.

    Example:
        >>> amounts_of(np.full((1, 3), 255, np.uint8))
        array([[0., 0.]], dtype=float32)
    """
    density = -np.log((pixels.astype(np.float32) + 1) / 256)
    return np.clip(density @ np.linalg.pinv(STAINS).astype(np.float32), 0, None)


def stained(
    amounts: Float[np.ndarray, "*shape 2"], stains: Float[np.ndarray, "2 3"] = STAINS, white: float = 244.0
) -> Float[np.ndarray, "*shape 3"]:
    """Colours of stain amounts on a background, 0-255, not rounded."""
    return white * np.exp(-amounts @ stains.astype(np.float32))


@cache
def load_textures(part: Part) -> Textures:
    """Load the embedded textures of one part.

    Args:
        part: train or test: every other one of eight bands of the slide, and the left 60 % of the image or the rest.
    """
    tissue = np.concatenate([_crops(band, CROP_PX // 4) for band in real_bands(part)])
    tissue = tissue[np.argsort(tissue[..., 0].mean((1, 2)), kind="stable")]
    with Image.open(_EMBEDDED / "dense_nuclei.jpg") as image:
        nuclei = np.asarray(image.convert("RGB"))
    border = round(nuclei.shape[1] * _TRAIN_SHARE)
    nuclei = nuclei[:, :border] if part == "train" else nuclei[:, border:]
    nuclei = cv2.resize(nuclei, None, fx=_NUCLEI_SCALE, fy=_NUCLEI_SCALE, interpolation=cv2.INTER_AREA)
    lesion = _crops(nuclei, 8)
    mean, std = lesion.mean((0, 1, 2)), lesion.std((0, 1, 2))
    lesion = (lesion - mean) / std * tissue.std((0, 1, 2)) + tissue.mean((0, 1, 2))
    return Textures(tissue, np.clip(lesion, 0, None))


def real_bands(part: Part) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The four bands of the embedded slide that belong to a part, from the top, of 370 rows each."""
    with closing(open_slide(EMBEDDED_SLIDE)) as slide:
        level = slide.levels[0]
        pixels = slide.read(0, 0, level.width, level.height)
    height = level.height // _BANDS
    return [pixels[one * height : (one + 1) * height] for one in range(0 if part == "train" else 1, _BANDS, 2)]


def _crops(pixels: UInt8[np.ndarray, "height width 3"], step: int) -> Float[np.ndarray, "crops side side 2"]:
    """Crops of an image that are full of tissue."""
    amounts = amounts_of(pixels)
    covered = (cv2.blur(amounts.sum(-1), (15, 15)) > 0.25).astype(np.float32)
    height, width = covered.shape
    corners = [(y, x) for y in range(0, height - CROP_PX + 1, step) for x in range(0, width - CROP_PX + 1, step)]
    cut = [(slice(y, y + CROP_PX), slice(x, x + CROP_PX)) for y, x in corners]
    return np.stack([amounts[crop] for crop in cut if covered[crop].mean() > 0.95])
