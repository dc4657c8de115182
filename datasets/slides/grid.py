"""Grids of square patches on the tissue of a slide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .coverage import covered_area
from .shapes import merge, polygons, shapely
from .slide import Slide

__all__ = ["Grid", "build_grid", "patch_side"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Coordinates of square patches of one physical size.

    A patch spans `side` whole pixels of full resolution, and is resampled to `patch` pixels, so that it has `mpp`
    microns per pixel whatever the slide has.

    Attributes:
        coordinates: x and y of the upper left corners in pixels of full resolution, row by row from the top.
        tissue: share of each patch that is tissue, 0-1.
        patch: side of a patch in pixels, as an encoder expects it.
        side: side of a patch in pixels of full resolution.
        step: distance between neighbouring patches in pixels of full resolution.
        mpp: microns per pixel of the patches, `slide_mpp * side / patch`.
        slide_mpp: microns per pixel of the slide at full resolution.
        width: of the slide at full resolution.
        height: of the slide at full resolution.
    """

    coordinates: Int[np.ndarray, "patches 2"]
    tissue: Float[np.ndarray, " patches"]
    patch: int
    side: int
    step: int
    mpp: float
    slide_mpp: float
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.coordinates)


def build_grid(
    slide: Slide,
    regions: Any,
    *,
    patch: int = 256,
    mpp: float = 0.5,
    overlap: float = 0.0,
    min_tissue: float = 0.25,
    exclude: Any = None,
    align: bool = False,
) -> Grid:
    """Lay a grid of patches of an exact physical size over the regions of a slide.

    The whole slide has one grid, so no patch belongs to two pieces of tissue. It starts at the corner of the scanned
    area. Patches may extend beyond the slide, where they are white. The share of tissue is computed exactly, from the
    outlines.

    Unlike CLAM and TRIDENT, which know magnifications only, a patch has the requested size in microns on every
    scanner: its side at full resolution is `patch * mpp / slide.mpp`, rounded to whole pixels.

    Args:
        slide: an open slide, whose size, bounds and microns per pixel are used.
        regions: a `Tissue`, or a shapely geometry in pixels of full resolution.
        patch: side in pixels, as the encoder expects it, at least 1.
        mpp: microns per pixel of the patches, above 0.
        overlap: of neighbouring patches, as a share of their side, 0 <= overlap < 1.
        min_tissue: share of a patch that must be tissue, 0-1; 0 keeps every patch that touches tissue.
        exclude: a geometry whose area does not count as tissue.
        align: start the grid at a corner of the file's tiles, which reads faster where the scanned area starts
            elsewhere (MIRAX).

    Raises:
        ValueError: a value is out of range, the slide's microns per pixel are unknown, or there would be too many
            patches for the memory.

    Returns:
        The grid, which is empty where there is no tissue.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from regard.datasets.slides.image_slide import ImageSlide
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (2000, 1500)).save(f"{folder}/a.png")
        ...     grid = build_grid(ImageSlide(f"{folder}/a.png", mpp=0.25), shapely.box(500, 0, 1600, 900))
        >>> grid.side, grid.coordinates.tolist(), grid.tissue.round(2).tolist()
        (512, [[512, 0], [1024, 0], [512, 512], [1024, 512]], [1.0, 1.0, 0.76, 0.76])
    """
    if not (math.isfinite(overlap) and 0 <= overlap < 1):
        raise ValueError(f"overlap is {overlap}; give a share of the side, 0 <= overlap < 1")
    if not 0 <= min_tissue <= 1:
        raise ValueError(f"min_tissue is {min_tissue}; give a share of a patch, 0-1")
    side = patch_side(slide, patch=patch, mpp=mpp)
    assert slide.mpp is not None
    step = max(1, round(side * (1 - overlap)))
    regions = merge([getattr(regions, "regions", regions)])
    if exclude is not None:
        regions = merge([shapely.difference(regions, merge([exclude]))])
    full = slide.levels[0]
    origin = _origin(slide) if align else slide.bounds[:2]
    inside = shapely.box(*origin, full.width, full.height)
    if not regions.is_empty and not shapely.box(*regions.bounds).within(inside):
        regions = merge([shapely.intersection(regions, inside)])
    coordinates, tissue = _covered_corners(regions, origin, side, step, min_tissue)
    return Grid(
        coordinates=coordinates,
        tissue=tissue,
        patch=patch,
        side=side,
        step=step,
        mpp=slide.mpp * side / patch,
        slide_mpp=slide.mpp,
        width=full.width,
        height=full.height,
    )


def patch_side(slide: Slide, *, patch: int, mpp: float) -> int:
    """Side of a patch in pixels of the slide's full resolution.

    Args:
        slide: an open slide, whose microns per pixel are used.
        patch: side of the patch in pixels, at least 1.
        mpp: microns per pixel of the patch, above 0.

    Raises:
        ValueError: the slide's microns per pixel are unknown, or a value is out of range.
    """
    if patch < 1:
        raise ValueError(f"patch is {patch}; give the side of a patch in pixels, at least 1")
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp is {mpp}; give microns per pixel above 0, such as 0.5 for 20x")
    if slide.mpp is None:
        raise ValueError(
            f"{slide.path} does not hold its microns per pixel; give --slide_mpp, or a --table with the column mpp; a "
            "scan at 20x has about 0.5, at 40x about 0.25"
        )
    side = round(patch * mpp / slide.mpp)
    if side < 1:
        raise ValueError(
            f"patches of {patch} px at {mpp} um/px are smaller than one pixel of {slide.path}, {slide.mpp} um"
        )
    return side


def _origin(slide: Slide) -> tuple[int, int]:
    """Corner of the tile in which the scanned area starts."""
    tile = slide.levels[0].tile or (1, 1)
    return slide.bounds[0] // tile[0] * tile[0], slide.bounds[1] // tile[1] * tile[1]


def _covered_corners(
    regions: Any, origin: tuple[int, int], side: int, step: int, min_tissue: float
) -> tuple[Int[np.ndarray, "patches 2"], Float[np.ndarray, " patches"]]:
    """Corners of the patches with enough tissue, and their shares of it.

    The areas are measured between lines at all edges of all patches, so that sums of their cells are exact.
    """
    if not polygons(regions):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    bounds = np.array(regions.bounds)
    axes = []
    for start, low, high in zip(origin, bounds[:2], bounds[2:], strict=True):
        first = max(0, math.floor((low - start - side) / step) + 1)
        last = max(first, math.ceil((high - start) / step) - 1)
        corners = start + step * np.arange(first, last + 1, dtype=np.int64)
        lines = np.union1d(corners, corners + side)
        axes.append((corners, lines, np.searchsorted(lines, corners), np.searchsorted(lines, corners + side)))
    (xs, columns, left, right), (ys, rows, top, bottom) = axes
    if len(columns) * len(rows) > _MAX_CELLS:
        raise ValueError(
            f"a patch of {side} px every {step} px gives {len(xs) * len(ys):,} patches, which is "
            "too many; use larger patches or less overlap"
        )
    area = np.zeros((len(rows), len(columns)))
    np.cumsum(np.cumsum(covered_area(regions, columns.astype(float), rows.astype(float)), 0), 1, out=area[1:, 1:])
    inner = area[:, right] - area[:, left]
    share = ((inner[bottom] - inner[top]) / side**2).round(9).clip(0, 1)
    kept = share >= min_tissue if min_tissue else share > 0
    row, column = np.nonzero(kept)
    return np.stack([xs[column], ys[row]], 1), share[row, column]


#: Cells between the lines, 8 bytes each; a few arrays of this size are held in memory.
_MAX_CELLS = 40_000_000
