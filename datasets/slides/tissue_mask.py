"""Segments tissue on a thumbnail by hysteresis thresholding.

Tissue is coloured or darker than the glass. Components of a weak threshold are kept where they reach a strong one: pale
tissue keeps its borders, and noise of the glass and faint smears are dropped. The glass is first balanced to white, so
that its tint does not count. No histogram is split in two, which fails where a slide is all tissue or all glass.

Differs from CLAM, which uses one threshold of saturation, 8 or 15, or Otsu's; areas here are in square microns.
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


#: Noise of the glass; what is above is more likely pale tissue.
_MAX_NOISE = 16.0


@dataclass(frozen=True, kw_only=True)
class TissueOptions:
    """Options of tissue segmentation.

    Attributes:
        mpp: microns per pixel of the thumbnail.
        weak: colour and darkness, 0-255, above which a pixel may be tissue; raised on noisy glass.
        strong: colour and darkness that some pixel of each piece must have.
        darkness: weight of darkness relative to colour, 0-1.
        median_um: width of the median filter; dust below half of it is removed.
        close_um: gaps up to this width are closed.
        min_piece_um2: smaller pieces are removed.
        min_hole_um2: smaller holes are filled.
        min_piece_share: as `min_piece_um2`, as a share of the slide, where its microns per pixel are unknown.
        min_hole_share: as `min_hole_um2`, likewise.
    """

    mpp: float = 4.0
    weak: float = 8.0
    strong: float = 20.0
    darkness: float = 0.5
    median_um: float = 20.0
    close_um: float = 30.0
    min_piece_um2: float = 4_000.0
    min_hole_um2: float = 20_000.0
    min_piece_share: float = 1e-5
    min_hole_share: float = 5e-5


#: Name -> options.
PRESETS: Mapping[str, TissueOptions] = MappingProxyType(
    {
        "biopsy": TissueOptions(),
        "resection": TissueOptions(
            mpp=8.0,
            median_um=40.0,
            close_um=60.0,
            min_piece_um2=100_000.0,
            min_hole_um2=100_000.0,
            min_piece_share=1e-4,
            min_hole_share=1e-4,
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
    """Segment coloured or dark pixels, with pieces and holes of any size.

    Args:
        image: of the whole slide, RGB.
        spacing_um: microns per pixel of the image.
        options: thresholds and widths.
        ignore: what is not tissue, such as pen marks; it does not join pieces.
    """
    if ignore is not None and ignore.any():
        image = np.where(ignore[..., None], np.uint8(255), image)
    glass, empty = _glass(image)
    gain = glass.max() / glass
    balanced = np.minimum(image * gain.astype(np.float32), 255)
    brightest, darkest = _extremes(balanced)
    signal = brightest - darkest + options.darkness * np.maximum(glass.max() - brightest, 0)
    signal = signal.clip(0, 255).astype(np.uint8)
    width = _odd(options.median_um / spacing_um)
    if width > 1:
        signal = cv2.medianBlur(signal, width)
    # Where the noise of the glass exceeds the weak threshold, both thresholds are raised.
    raised = max(0.0, min(_noise(signal[empty]), _MAX_NOISE) - options.weak)
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
    mask: Bool[np.ndarray, "height width"], *, min_piece: float, min_hole: float
) -> Bool[np.ndarray, "height width"]:
    """Remove small pieces and fill small holes.

    Args:
        mask: of the tissue.
        min_piece: area in pixels.
        min_hole: area in pixels; what touches the border is not a hole.
    """
    filled = mask | _small(~mask, min_hole, at_border=False, connectivity=4)
    return filled & ~_small(filled, min_piece, at_border=True, connectivity=8)


def _small(
    mask: Bool[np.ndarray, "height width"], min_area: float, *, at_border: bool, connectivity: int
) -> Bool[np.ndarray, "height width"]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    small = stats[:, cv2.CC_STAT_AREA] < min_area
    small[0] = False
    if not at_border:
        small[np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))] = False
    return small[labels] if count > 1 else np.zeros_like(mask)


def _glass(
    image: UInt8[np.ndarray, "height width 3"],
) -> tuple[Float[np.ndarray, "3"], Bool[np.ndarray, "height width"]]:
    """Colour of the empty glass, and its mask; a typical white where there is none."""
    brightest, darkest = _extremes(image)
    chroma = brightest - darkest
    kernel = np.ones((3, 3), np.uint8)
    even = cv2.dilate(brightest, kernel) - cv2.erode(brightest, kernel) < 8
    found = (brightest >= 200) & (chroma < 45) & even & (darkest < 254)  # 254 and above: not scanned
    if found.sum() < 0.002 * brightest.size:
        return np.full(3, 245.0), np.zeros_like(found)
    found &= brightest >= np.percentile(brightest[found], 75) - 8
    return np.maximum(np.median(image[found], axis=0), 1.0).astype(np.float64), found


def _noise(signal: UInt8[np.ndarray, " pixels"]) -> float:
    """Upper bound of the signal of empty glass."""
    if not signal.size:
        return 0.0
    middle = np.median(signal)
    return float(middle + 4 * 1.48 * np.median(np.abs(signal - middle)))


def _extremes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the smallest channel; NumPy is slow along such a short axis."""
    red, green, blue = cv2.split(image)
    return cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)


def _odd(width: float) -> int:
    return min(max(1, round(width)) | 1, 255)
