"""Regions of a slide as shapely geometries: polygons with holes, in pixels of full resolution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

try:
    import shapely
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('regions of slides need shapely: pip install "regard[wsi]"') from error

__all__ = ["merge", "polygons", "shapely"]


def polygons(geometry: Any) -> list[Any]:
    """The polygons of any geometry; points, lines and empty polygons are dropped.

    Self-intersecting rings are repaired.
    """
    if geometry is None or geometry.is_empty:
        return []
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    parts = shapely.get_parts(geometry).tolist()
    found = []
    for part in parts:
        if part.geom_type == "Polygon":
            if part.area > 0:
                found.append(part)
        elif part.geom_type in ("MultiPolygon", "GeometryCollection"):
            found.extend(polygons(part))
    return found


def merge(geometries: Iterable[Any]) -> Any:
    """The union of geometries as one valid MultiPolygon, which may be empty.

    Example:
        >>> round(merge([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2), shapely.Point(9, 9)]).area, 3)
        6.0
    """
    geometries = [geometry for geometry in geometries if geometry is not None]
    parts = [part for geometry in geometries for part in polygons(geometry)]
    one = len(geometries) == 1 and geometries[0].geom_type in ("Polygon", "MultiPolygon")  # disjoint already
    return shapely.MultiPolygon(parts if one or not parts else polygons(shapely.union_all(parts)))
