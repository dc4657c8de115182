"""Which pixels of a small image of a slide are tissue.

Tissue is coloured or darker than the glass. A weak threshold finds how far it reaches, a strong one which pieces are
any: pale tissue keeps its borders, and the noise of the glass and faint smears are no pieces. The glass is first made
white, so that its tint does not count. There is no split of a histogram in two, which fails where a slide is all
tissue or all glass.

Differs from CLAM, which takes one threshold of saturation, 8 or 15, or Otsu's; areas here are in square microns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from .morphology import close_disk

__all__ = ["PRESETS", "TissueOptions", "clean_mask", "tissue_mask"]


#: Of the glass; above this it is rather pale tissue.
_MOST_NOISE = 16.0


@dataclass(frozen=True, kw_only=True)
class TissueOptions:
    """What counts as tissue.

    Attributes:
        mpp: microns per pixel of the image that is looked at.
        weak: colour and darkness, 0-255, that tissue has at its border; raised where the glass is noisier.
        strong: colour and darkness that each piece has somewhere.
        darkness: weight of darkness beside colour, 0-1.
        median_um: width of the median filter; dust below half of it vanishes.
        close_um: gaps up to this width are closed.
        least_piece_um2: smaller pieces are left out.
        least_hole_um2: smaller holes are filled.
        least_piece_share: as `least_piece_um2`, as a share of the slide, where its microns per pixel are unknown.
        least_hole_share: as `least_hole_um2`, likewise.
    """

    mpp: float = 4.0
    weak: float = 8.0
    strong: float = 20.0
    darkness: float = 0.5
    median_um: float = 20.0
    close_um: float = 30.0
    least_piece_um2: float = 4_000.0
    least_hole_um2: float = 20_000.0
    least_piece_share: float = 1e-5
    least_hole_share: float = 5e-5


#: Name -> options.
PRESETS: Mapping[str, TissueOptions] = MappingProxyType(
    {
        "biopsy": TissueOptions(),
        "resection": TissueOptions(
            mpp=8.0,
            median_um=40.0,
            close_um=60.0,
            least_piece_um2=100_000.0,
            least_hole_um2=100_000.0,
            least_piece_share=1e-4,
            least_hole_share=1e-4,
        ),
        "faint": TissueOptions(weak=4.0, strong=8.0, darkness=1.0),
    }
)


def tissue_mask(
    image: UInt8[np.ndarray, "height width 3"],
    spacing_um: float,
    options: TissueOptions,
    ignore: Bool[np.ndarray, "height width"] | None = None,
) -> Bool[np.ndarray, "height width"]:
    """Coloured or dark pixels; pieces and holes of any size.

    Args:
        image: of the whole slide, RGB.
        spacing_um: microns per pixel of the image.
        options: thresholds and widths.
        ignore: what is no tissue, such as ink; it joins no pieces.
    """
    if ignore is not None and ignore.any():
        image = np.where(ignore[..., None], np.uint8(255), image)
    glass, empty = _glass(image)
    gain = glass.max() / glass
    balanced = np.minimum(image * gain.astype(np.float32), 255)
    bright, least = _extremes(balanced)
    signal = bright - least + options.darkness * np.maximum(glass.max() - bright, 0)
    signal = signal.clip(0, 255).astype(np.uint8)
    width = _odd(options.median_um / spacing_um)
    if width > 1:
        signal = cv2.medianBlur(signal, width)
    # Where the glass itself strays further than the weak threshold, both thresholds are raised.
    raised = max(0.0, min(_noise(signal[empty]), _MOST_NOISE) - options.weak)
    weak, strong = signal >= options.weak + raised, signal >= options.strong + raised
    if ignore is not None:
        weak &= ~ignore
    closed = close_disk(weak, options.close_um / spacing_um)
    if ignore is not None:
        closed &= ~ignore
    _, labels = cv2.connectedComponents(closed.astype(np.uint8), connectivity=8)
    pieces = np.unique(labels[strong & closed])
    return np.isin(labels, pieces) & closed


def clean_mask(
    mask: Bool[np.ndarray, "height width"], *, least_piece: float, least_hole: float
) -> Bool[np.ndarray, "height width"]:
    """Leave out small pieces and fill small holes.

    Args:
        mask: what is tissue.
        least_piece: area in pixels.
        least_hole: area in pixels; what is open to the border is no hole.
    """
    filled = mask | _small(~mask, least_hole, at_border=False, connectivity=4)
    return filled & ~_small(filled, least_piece, at_border=True, connectivity=8)


def _small(
    mask: Bool[np.ndarray, "height width"], least: float, *, at_border: bool, connectivity: int
) -> Bool[np.ndarray, "height width"]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    small = stats[:, cv2.CC_STAT_AREA] < least
    small[0] = False
    if not at_border:
        small[np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))] = False
    return small[labels] if count > 1 else np.zeros_like(mask)


def _glass(
    image: UInt8[np.ndarray, "height width 3"],
) -> tuple[Float[np.ndarray, "3"], Bool[np.ndarray, "height width"]]:
    """Colour of the empty glass, and where it is; a usual white where there is none."""
    bright, least = _extremes(image)
    chroma = bright - least
    kernel = np.ones((3, 3), np.uint8)
    even = cv2.dilate(bright, kernel) - cv2.erode(bright, kernel) < 8
    found = (bright >= 200) & (chroma < 45) & even & (least < 254)  # 254 and up: never scanned
    if found.sum() < 0.002 * bright.size:
        return np.full(3, 245.0), np.zeros_like(found)
    found &= bright >= np.percentile(bright[found], 75) - 8
    return np.maximum(np.median(image[found], axis=0), 1.0).astype(np.float64), found


def _noise(signal: UInt8[np.ndarray, " pixels"]) -> float:
    """How far the signal of empty glass reaches."""
    if not signal.size:
        return 0.0
    middle = np.median(signal)
    return float(middle + 4 * 1.48 * np.median(np.abs(signal - middle)))


def _extremes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greatest and the least channel; NumPy is slow along so short an axis."""
    red, green, blue = cv2.split(image)
    return cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)


def _odd(width: float) -> int:
    return min(max(1, round(width)) | 1, 255)
