"""The exact area of regions in each cell of a grid of lines.

By Green's theorem a region's area in a cell follows from its outline alone: every outline is cut where it crosses a
line of the grid, and each segment adds to its cell and to all cells right of it. Nothing is rasterised, so the result
does not depend on a resolution, and the work grows with the outline and the number of cells only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from .shapes import shapely

__all__ = ["covered_area"]


def covered_area(
    regions: Any, columns: Float[np.ndarray, " columns"], rows: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "rows-1 columns-1"]:
    """Area of regions in each cell of a grid of rectangles.

    Args:
        regions: a valid shapely Polygon or MultiPolygon.
        columns: x of the vertical lines, ascending; the spacing may be uneven.
        rows: y of the horizontal lines, ascending.

    Example:
        >>> lines = np.array([0.0, 2.0, 4.0])
        >>> covered_area(shapely.box(1, 0, 4, 2), lines, lines)
        array([[2., 4.],
               [0., 0.]])
    """
    start, end = _edges(regions)
    start, end = _cut(start, end, columns, rows)
    middle = (start + end) / 2
    column = np.searchsorted(columns, middle[:, 0], side="right") - 1  # -1: left of all
    row = np.searchsorted(rows, middle[:, 1], side="right") - 1
    inside = (row >= 0) & (row < len(rows) - 1) & (column < len(columns) - 1)
    middle, column, row = middle[inside], column[inside], row[inside]
    height = (end - start)[inside, 1]
    shape = (len(rows) - 1, len(columns))  # one column more, on the left, for what is left of all
    flat = row * shape[1] + column + 1
    passing = np.bincount(flat, height, shape[0] * shape[1]).reshape(shape).cumsum(1)[:, :-1]
    to_its_right = columns[column + 1] - middle[:, 0]
    own = np.bincount(flat, height * to_its_right, shape[0] * shape[1]).reshape(shape)[:, 1:]
    return passing * np.diff(columns) + own


def _edges(regions: Any) -> tuple[Float[np.ndarray, "edges 2"], Float[np.ndarray, "edges 2"]]:
    """Both ends of every edge of every ring, oriented so that what is right of a falling edge counts."""
    rings = [ring for polygon in shapely.get_parts(regions) for ring in _rings(polygon)]
    if not rings:
        return np.zeros((0, 2)), np.zeros((0, 2))
    return np.concatenate([ring[:-1] for ring in rings]), np.concatenate([ring[1:] for ring in rings])


def _rings(polygon: Any) -> list[Float[np.ndarray, "points 2"]]:
    polygon = shapely.orient_polygons(polygon, exterior_cw=True)
    return [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]


def _cut(
    start: Float[np.ndarray, "edges 2"],
    end: Float[np.ndarray, "edges 2"],
    columns: Float[np.ndarray, " columns"],
    rows: Float[np.ndarray, " rows"],
) -> tuple[Float[np.ndarray, "segments 2"], Float[np.ndarray, "segments 2"]]:
    """Edges, cut into segments that lie in one cell each."""
    count = len(start)
    edges, parts = [np.arange(count), np.arange(count)], [np.zeros(count), np.ones(count)]
    for axis, lines in enumerate((columns, rows)):
        low = np.searchsorted(lines, np.minimum(start, end)[:, axis], side="right")
        crossed = np.maximum(0, np.searchsorted(lines, np.maximum(start, end)[:, axis], side="left") - low)
        edge = np.repeat(np.arange(count), crossed)
        line = lines[np.arange(len(edge)) - np.repeat(crossed.cumsum() - crossed, crossed) + low[edge]]
        edges.append(edge)
        parts.append((line - start[edge, axis]) / (end - start)[edge, axis])
    edge, part = np.concatenate(edges), np.concatenate(parts)
    order = np.lexsort((part, edge))
    edge, part = edge[order], part[order]
    points = start[edge] + part[:, None] * (end - start)[edge]
    same = edge[1:] == edge[:-1]
    return points[:-1][same], points[1:][same]
