"""Detects pen marks and dark edges on a thumbnail of a slide.

Pen ink differs from stained tissue in hue or saturation, and its strokes are wide and even: colours of ink that remain
after a morphological opening of 40 microns are pen marks, which nuclei and blood cells do not survive. From there a
mark grows into paler ink of the same hue next to it. The border of a scan is grey without texture and touches the
image's border.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from .morphology import close_disk, dilate_disk, open_disk

__all__ = ["Marks", "find_marks"]

_STROKE_UM = 40.0
_HALO_UM = 40.0


@dataclass(frozen=True, eq=False)
class Marks:
    """Masks of what is not tissue although it is not white.

    Attributes:
        pen: pen marks.
        edge: black areas, or the grey border of a scan.
    """

    pen: Bool[np.ndarray, "height width"]
    edge: Bool[np.ndarray, "height width"]


@dataclass(frozen=True)
class _Ink:
    """Range of hues in degrees, clockwise; lowest saturation (0-255) of ink and of its pale border."""

    hues: tuple[int, int]
    saturation: int
    border: int
    min_value: int = 40


# Haematoxylin is 230-280 degrees and paler, DAB 15-40, eosin 320-350, blood to 355 below a saturation of 180.
_INKS = {
    "blue": _Ink((195, 246), 115, 30),
    "green": _Ink((75, 180), 70, 15),
    "red": _Ink((352, 12), 185, 20, min_value=110),
}


def find_marks(image: UInt8[np.ndarray, "height width 3"], spacing_um: float) -> Marks:
    """Find pen marks and dark edges.

    Args:
        image: of the whole slide, RGB.
        spacing_um: microns per pixel of the image.

    Example:
        >>> image = np.full((60, 80, 3), 240, np.uint8)
        >>> image[20:30, 5:70] = 20, 60, 200
        >>> int(find_marks(image, spacing_um=10.0).pen[20:30, 5:70].sum())
        650
    """
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    degrees = hue.astype(np.float32) * 2
    red, green, blue = cv2.split(image)
    chroma = value - cv2.min(cv2.min(red, green), blue)  # OpenCV: NumPy is slow along short axes
    stroke, halo = _STROKE_UM / spacing_um, _HALO_UM / spacing_um
    pen = np.zeros(value.shape, bool)
    for ink in _INKS.values():
        first, last = ink.hues
        hues = (degrees >= first) & (degrees <= last) if first < last else (degrees >= first) | (degrees <= last)
        seed = hues & (saturation >= ink.saturation) & (value >= ink.min_value)
        pen |= _grow(seed, hues & (saturation >= ink.border), stroke, halo)
    black = (value < 75) & (chroma < 35)
    dark = _grow(black, (value < 200) & (chroma < 25), stroke, halo)
    grey = _grow(_even_grey(value, chroma, stroke), (value < 232) & (chroma < 12), stroke, halo)
    edge = _touches_border(dark | grey)
    pure = open_disk(value < 8, stroke)  # areas that were not scanned, anywhere
    return Marks(pen=pen | (dark & ~edge & ~pure), edge=edge | pure)


def _even_grey(
    value: UInt8[np.ndarray, "height width"], chroma: UInt8[np.ndarray, "height width"], stroke: float
) -> Bool[np.ndarray, "height width"]:
    """Grey without texture, unlike any tissue; may be a gradient."""
    texture = np.abs(cv2.Laplacian(cv2.blur(value, (3, 3)), cv2.CV_16S, borderType=cv2.BORDER_REPLICATE))
    near = np.ones((max(1, round(stroke)) | 1,) * 2, np.uint8)
    return (value < 225) & (chroma < 12) & (cv2.dilate(texture, near) < 8)


def _touches_border(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The components that touch the image's border."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    outer = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return mask & np.isin(labels, outer[outer > 0])


def _grow(
    seed: Bool[np.ndarray, "height width"], into: Bool[np.ndarray, "height width"], stroke: float, halo: float
) -> Bool[np.ndarray, "height width"]:
    """Wide parts of a seed, grown into similar pixels nearby."""
    core = open_disk(seed, stroke)
    if not core.any():
        return core
    # Without speckles of neighbouring tissue, some of which has the hue of ink.
    grown = open_disk(core | (dilate_disk(core, halo) & (seed | into)), 3.0)
    return core | _connected_to(close_disk(grown, stroke), core)


def _connected_to(mask: Bool[np.ndarray, "height width"], core: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """The components of a mask that contain pixels of the core."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    found = np.unique(labels[core])
    return mask & np.isin(labels, found[found > 0])
