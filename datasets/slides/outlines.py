"""Converts a mask to polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from skimage.measure import find_contours

from .shapes import merge, polygons, shapely

__all__ = ["outlines"]


def outlines(mask: Bool[np.ndarray, "rows columns"], downsample: float, width: int, height: int) -> Any:
    """Convert a mask to a valid MultiPolygon in pixels of full resolution, with holes.

    Outlines run midway between pixels inside and outside, so that areas are unbiased, and are simplified by less than a
    pixel of the mask.

    Args:
        mask: of the whole slide.
        downsample: pixels of full resolution that one of its pixels spans.
        width: of the slide in pixels of full resolution, to which polygons are clipped.
        height: of the slide likewise.

    Example:
        >>> mask = np.zeros((8, 8), bool)
        >>> mask[2:6, 2:6] = True
        >>> outlines(mask, 10.0, 80, 80).bounds
        (20.0, 20.0, 60.0, 60.0)
    """
    # Shapely nests the rings, which is faster than one region at a time. The frame of zeros closes them at the border.
    rings = find_contours(np.pad(mask, 1).astype(np.uint8), 0.5)
    if not rings:
        return merge([])
    lines = [shapely.LinearRing(((ring[:, ::-1] - 0.5) * downsample).clip(0, (width, height))) for ring in rings]
    found = polygons(shapely.build_area(shapely.GeometryCollection(lines)))
    return merge([shapely.MultiPolygon(polygons(shapely.simplify(shapely.MultiPolygon(found), 0.6 * downsample)))])
