"""Where the patches of a slide lie."""

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
    """Places of square patches of one physical size.

    A patch spans `side` pixels of full resolution, whole pixels, and is resampled to `patch` pixels, so that it has
    `mpp` microns a pixel whatever the slide has.

    Attributes:
        coordinates: x and y of the upper left corners in pixels of full resolution, by rows from the top.
        tissue: share of each patch that is tissue, 0-1.
        patch: side of a patch in pixels, as an encoder takes it.
        side: side of a patch in pixels of full resolution.
        step: from one patch to the next in pixels of full resolution.
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
    """Lay patches of an exact physical size over the regions of a slide.

    There is one lattice for the whole slide, so that no two pieces of tissue get the same patch twice. It starts at the
    corner of what was scanned. Patches may reach over the edge of the slide, where they are white. The share of tissue
    is exact, whatever the size of the patches.

    Unlike CLAM and TRIDENT, which know magnifications only, a patch has the wanted microns on every scanner: its side
    at full resolution is `patch * mpp / slide.mpp`, rounded to whole pixels.

    Args:
        slide: gives its size, its bounds and its microns per pixel.
        regions: a `Tissue`, or a shapely geometry in pixels of full resolution.
        patch: side in pixels, as the encoder takes it, from 1.
        mpp: microns per pixel of the patches, over 0.
        overlap: share of its side that a patch shares with the next one, from 0 and below 1.
        min_tissue: share of a patch that must be tissue, 0-1; 0 keeps all that touch any.
        exclude: a geometry whose area does not count as tissue.
        align: start the lattice at a corner of the slide's own tiles, which reads faster where the scanned part starts
            elsewhere (MIRAX).

    Raises:
        ValueError: a value is outside its range, the slide does not tell its microns per pixel, or the patches would be
            too many for the memory.

    Returns:
        A grid without patches where there is no tissue.

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
        raise ValueError(f"overlap is a share of the side from 0 and below 1, not {overlap}")
    if not 0 <= min_tissue <= 1:
        raise ValueError(f"min_tissue is a share of a patch, 0-1, not {min_tissue}")
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
    coordinates, tissue = _covered_places(regions, origin, side, step, min_tissue)
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
        slide: gives its microns per pixel.
        patch: side in pixels of the patch, from 1.
        mpp: microns per pixel of the patch, over 0.

    Raises:
        ValueError: the slide does not tell its microns per pixel, or a value is outside its range.
    """
    if patch < 1:
        raise ValueError(f"patch is the side of a patch in pixels, from 1, not {patch}")
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp is in microns per pixel, over 0, as 0.5 is for 20x; not {mpp}")
    if slide.mpp is None:
        raise ValueError(
            f"{slide.path} does not tell its microns per pixel; give them, for all slides or in a table (column mpp); "
            "a scan at 20x has about 0.5, at 40x about 0.25"
        )
    side = round(patch * mpp / slide.mpp)
    if side < 1:
        raise ValueError(
            f"patches of {patch} px at {mpp} um/px are smaller than one pixel of {slide.path}, {slide.mpp} um"
        )
    return side


def _origin(slide: Slide) -> tuple[int, int]:
    """The corner of the tile in which the scanned part starts."""
    tile = slide.levels[0].tile or (1, 1)
    return slide.bounds[0] // tile[0] * tile[0], slide.bounds[1] // tile[1] * tile[1]


def _covered_places(
    regions: Any, origin: tuple[int, int], side: int, step: int, min_tissue: float
) -> tuple[Int[np.ndarray, "patches 2"], Float[np.ndarray, " patches"]]:
    """Corners of the patches with enough tissue, and how much they have.

    The lattice that is measured has a line at every edge of any patch, so that sums of its cells are exact.
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
    if len(columns) * len(rows) > _MOST_CELLS:
        raise ValueError(
            f"a patch of {side} px every {step} px gives {len(xs) * len(ys):,} places; "
            "take larger patches or less overlap"
        )
    area = np.zeros((len(rows), len(columns)))
    np.cumsum(np.cumsum(covered_area(regions, columns.astype(float), rows.astype(float)), 0), 1, out=area[1:, 1:])
    inner = area[:, right] - area[:, left]
    share = ((inner[bottom] - inner[top]) / side**2).round(9).clip(0, 1)
    kept = share >= min_tissue if min_tissue else share > 0
    row, column = np.nonzero(kept)
    return np.stack([xs[column], ys[row]], 1), share[row, column]


#: Of the lattice, 8 bytes each; a few arrays of this size are held.
_MOST_CELLS = 40_000_000
