"""Binary morphology with disks, by distance transforms: the cost does not grow with the disk."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool

__all__ = ["close_disk", "dilate_disk", "open_disk"]


def open_disk(mask: Bool[np.ndarray, "height width"], diameter: float) -> Bool[np.ndarray, "height width"]:
    """Morphological opening: what disks of a diameter in pixels fit into; the mask continues beyond the border."""
    if diameter < 2 or not mask.any():
        return mask
    radius = max(0.0, (diameter - 1) / 2)
    return dilate_disk(_distance(mask) > radius, radius)


def close_disk(mask: Bool[np.ndarray, "height width"], diameter: float) -> Bool[np.ndarray, "height width"]:
    """Morphological closing: what disks of a diameter in pixels outside of the mask do not reach."""
    return ~open_disk(~mask, diameter)


def dilate_disk(mask: Bool[np.ndarray, "height width"], radius: float) -> Bool[np.ndarray, "height width"]:
    """Morphological dilation: all pixels within a radius in pixels.

    Example:
        >>> point = np.zeros((7, 7), bool)
        >>> point[3, 3] = True
        >>> int(dilate_disk(point, 1.0).sum()), int(open_disk(dilate_disk(point, 1.0), 5.0).sum())
        (5, 0)
    """
    return _distance(~mask) <= radius if mask.any() else mask


def _distance(mask: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Distance to the nearest pixel outside of the mask, to 2 %."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
