"""Scores of patches as a small raster, with one cell for each step of the grid, which all heatmaps are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from ....datasets.slides.grid import Grid

__all__ = ["PatchRaster", "percentiles", "rasterize"]

#: Cells of a raster along a side at most; grids that are finer share cells.
_MAX_CELLS = 2048


@dataclass(frozen=True, eq=False)
class PatchRaster:
    """A raster of scores, with its position on a slide.

    Attributes:
        x: of the left edge, in pixels of full resolution.
        y: of the upper edge.
        cell: side of a cell in pixels of full resolution.
        values: of the cells; not a number where no patch is.
    """

    x: int
    y: int
    cell: float
    values: Float[np.ndarray, "rows columns"]

    def at(self, x: Float[np.ndarray, " columns"], y: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "rows columns"]:
        """Values at the points of a raster, given by its columns and rows in pixels of full resolution.

        Example:
            >>> raster = PatchRaster(x=10, y=0, cell=4.0, values=np.array([[1.0, 2.0]]))
            >>> raster.at(np.array([9.0, 10.0, 17.9, 18.0]), np.array([3.0]))
            array([[nan,  1.,  2., nan]])
        """
        columns = np.floor((x - self.x) / self.cell).astype(int)
        rows = np.floor((y - self.y) / self.cell).astype(int)
        height, width = self.values.shape
        inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
        found = np.full((len(y), len(x)), np.nan)
        found[inside] = self.values[np.ix_(rows[inside[0][:, 0]], columns[inside[1][0]])]
        return found


def percentiles(values: Float[np.ndarray, " patches"]) -> Float[np.ndarray, " patches"]:
    """Rank of each value within its slide, 0-100; equal ones share the middle, and a lone one is 50.

    Example:
        >>> percentiles(np.array([0.1, 0.4, 0.2, 0.2]))
        array([12.5, 87.5, 50. , 50. ])
    """
    return 100 * (rankdata(values) - 0.5) / max(1, len(values))


def rasterize(grid: Grid, values: Float[np.ndarray, " patches"]) -> PatchRaster:
    """Rasterize the scores of a grid's patches.

    Where patches overlap, a cell has their mean, weighted by how much of the cell each covers.

    Args:
        grid: indices of the patches.
        values: one for each patch; those that are not finite are skipped.

    Raises:
        ValueError: there are more or fewer values than patches.
    """
    if len(values) != len(grid):
        raise ValueError(f"{len(values)} scores for {len(grid)} patches; give one for each")
    indices, known = grid.coordinates, np.isfinite(values)
    if not known.any():
        return PatchRaster(x=0, y=0, cell=float(max(1, grid.step)), values=np.full((1, 1), np.nan))
    corner = indices.min(axis=0)
    regular = not ((indices - corner) % grid.step).any()
    cell = float(grid.step if regular else max(1, grid.side // 4))
    extent = int((indices.max(axis=0) - corner).max()) + grid.side
    cell = max(cell, extent / _MAX_CELLS)
    first = (indices[known] - corner) / cell  # in cells
    width, height = np.ceil((indices.max(axis=0) - corner + grid.side) / cell - 1e-6).astype(int).tolist()
    total, weight = np.zeros((height, width)), np.zeros((height, width))
    reach = int(np.ceil(grid.side / cell - 1e-6)) + (not regular or cell != grid.step)
    for down in range(reach):
        rows, tall = _covered(first[:, 1], down, grid.side / cell, height)
        for right in range(reach):
            columns, wide = _covered(first[:, 0], right, grid.side / cell, width)
            share = tall * wide
            np.add.at(total, (rows, columns), share * values[known])
            np.add.at(weight, (rows, columns), share)
    with np.errstate(invalid="ignore"):
        mean = np.where(weight > 1e-9, total / weight, np.nan)
    return PatchRaster(x=int(corner[0]), y=int(corner[1]), cell=cell, values=mean)


def _covered(
    first: Float[np.ndarray, " patches"], further: int, span: float, cells: int
) -> tuple[Int[np.ndarray, " patches"], Float[np.ndarray, " patches"]]:
    """The cell this many after that in which each patch begins, and how much of its length the patch covers."""
    cell = np.floor(first + 1e-6).astype(int) + further
    covered = np.minimum(cell + 1, first + span) - np.maximum(cell, first)
    return cell.clip(max=cells - 1), covered.clip(min=0)
