"""Regions of slides in GeoJSON, as QuPath and TRIDENT write and read them.

Coordinates are pixels of full resolution, x before y. QuPath's class of an object is `classification.name` of its
properties (a plain string in some versions), its kind `objectType` (`object_type` before 0.3); TRIDENT numbers pieces
of tissue by `tissue_id`.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ...whole_files import whole_file
from .shapes import merge, polygons, shapely

__all__ = ["Region", "read_regions", "split_regions", "write_regions"]

#: Larger files are refused: parsed, they need several times as much memory.
MAX_BYTES = 512 << 20
_MAX_POINTS = 20_000_000
_MAX_DEPTH = 16
_MAX_PIXEL = 1e8
_COLOURS = {"Tissue": (20, 160, 60)}
_OTHER_COLOUR = (180, 180, 180)


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated object.

    Attributes:
        geometry: shapely MultiPolygon or Polygon in pixels of full resolution.
        name: its class, or its name if it has no class.
        tissue_id: number of a piece of tissue.
    """

    geometry: Any
    name: str | None = None
    tissue_id: int | None = None


def read_regions(path: str | Path) -> list[Region]:
    """Read the areas of a file; points and lines are skipped, self-intersecting rings are repaired.

    Args:
        path: a FeatureCollection, a list of features, a single feature, or a bare geometry.

    Raises:
        ValueError: the file is missing, too large or not GeoJSON, or has coordinates that cannot be pixels.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path} has {size >> 20} MiB; regions of tissue have at most {MAX_BYTES >> 20}")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read the regions {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not GeoJSON ({error}); export the objects again, as GeoJSON") from error
    regions: list[Region] = []
    points = [0]
    for properties, geometry in _features(content, f"{path}"):
        where = f"object {len(regions) + 1} of {path}"
        parts = [part for one in _areas(geometry, where, points) for part in polygons(one)]
        if parts:
            regions.append(Region(merge(parts), name=_name(properties), tissue_id=_tissue_id(properties)))
    return regions


def split_regions(
    regions: Sequence[Region], *, include: Sequence[str] = (), exclude: Sequence[str] = ("Ignore*", "Exclude*")
) -> tuple[Any, Any]:
    """Split regions by their names into those to include and those to exclude, as two MultiPolygons.

    Args:
        regions: as read from a file.
        include: patterns of names with * and ?, case-insensitive; without any, all that are not excluded.
        exclude: patterns likewise, which take precedence.

    Example:
        >>> tissue, ink = Region(shapely.box(0, 0, 9, 9), "Tissue"), Region(shapely.box(0, 0, 3, 3), "Ignore*")
        >>> [area.area for area in split_regions([tissue, ink])]
        [81.0, 9.0]
    """
    without = [region for region in regions if _matches(region, exclude)]
    rest = [region for region in regions if not _matches(region, exclude)]
    within = [region for region in rest if not include or _matches(region, include)]
    return merge([one.geometry for one in within]), merge([one.geometry for one in without])


def write_regions(path: str | Path, regions: Sequence[Region], *, namespace: str = "") -> None:
    """Write annotations for QuPath 0.2 and later and for TRIDENT, whole or not at all.

    Args:
        path: of the file.
        regions: to write.
        namespace: such as the slide's name; the same regions of the same namespace get the same ids.

    Raises:
        OSError: the file cannot be written.
    """
    features = []
    for number, region in enumerate(regions):
        for geometry in polygons(region.geometry):
            shape = json.loads(shapely.to_geojson(shapely.transform(geometry, lambda points: points.round(2))))
            name = region.name or "Region"
            properties: dict[str, Any] = {
                "objectType": "annotation",
                "name": name if region.tissue_id is None else f"{name} {region.tissue_id}",
                "classification": {"name": name, "color": list(_COLOURS.get(name, _OTHER_COLOUR))},
                "isLocked": False,
            }
            if region.tissue_id is not None:
                properties["tissue_id"] = region.tissue_id
            identity = json.dumps([namespace, number, name, shape], sort_keys=True)
            features.append(
                {
                    "type": "Feature",
                    "id": str(uuid.uuid5(uuid.NAMESPACE_URL, identity)),
                    "geometry": shape,
                    "properties": properties,
                }
            )
    with whole_file(Path(path)) as partial:
        partial.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _features(content: Any, where: str, depth: int = 0) -> Iterator[tuple[dict[str, Any], Any]]:
    """Properties and geometry of each object."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(content, list):
        for one in content:
            yield from _features(one, where, depth + 1)
        return
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection":
        yield from _features(content.get("features") or [], where, depth + 1)
    elif kind == "Feature":
        properties = content.get("properties")
        yield properties if isinstance(properties, dict) else {}, content.get("geometry")
    elif kind in (
        "Polygon",
        "MultiPolygon",
        "GeometryCollection",
        "Point",
        "MultiPoint",
        "LineString",
        "MultiLineString",
    ):
        yield {}, content
    else:
        raise ValueError(
            f"{where} is not GeoJSON: an object has the type {str(kind)[:40]!r}; export the objects as GeoJSON"
        )


def _areas(geometry: Any, where: str, points: list[int], depth: int = 0) -> Iterator[Any]:
    if geometry is None:
        return
    if not isinstance(geometry, dict) or depth > _MAX_DEPTH:
        raise ValueError(f"{where} has a geometry that is not GeoJSON")
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        geometries = geometry.get("geometries")
        if not isinstance(geometries, list):
            raise ValueError(f"{where} is not GeoJSON: a collection without geometries")
        for one in geometries:
            yield from _areas(one, where, points, depth + 1)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates = geometry.get("coordinates")
        several = [coordinates] if kind == "Polygon" else coordinates
        if not isinstance(several, list) or not all(isinstance(polygon, list) for polygon in several):
            raise ValueError(f"{where} has a polygon without rings")
        for polygon in several:
            rings = [_ring(ring, where, points) for ring in polygon]
            rings = [ring for ring in rings if len(ring) >= 3]
            if rings:
                yield shapely.Polygon(rings[0], rings[1:])


def _ring(ring: Any, where: str, points: list[int]) -> list[tuple[float, float]]:
    if not isinstance(ring, list):
        raise ValueError(f"{where} has a ring that is not a list of points")
    points[0] += len(ring)
    if points[0] > _MAX_POINTS:
        raise ValueError(f"{where}: the file has more than {_MAX_POINTS:,} points; simplify its outlines")
    found = []
    for point in ring:
        if not isinstance(point, list) or len(point) < 2 or not all(_is_pixel(value) for value in point[:2]):
            raise ValueError(
                f"{where} has the point {str(point)[:60]}; a point is x and y in pixels of full resolution"
            )
        found.append((float(point[0]), float(point[1])))
    return found


def _is_pixel(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < _MAX_PIXEL
    )


def _name(properties: dict[str, Any]) -> str | None:
    kind = properties.get("classification")
    name = kind.get("name") if isinstance(kind, dict) else kind
    if not name and isinstance(kind, dict) and isinstance(kind.get("names"), list):
        name = ": ".join(str(one) for one in kind["names"])
    name = name or properties.get("name")
    return name if isinstance(name, str) else None


def _tissue_id(properties: dict[str, Any]) -> int | None:
    value = properties.get("tissue_id")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _matches(region: Region, patterns: Sequence[str]) -> bool:
    # QuPath's own class is called "Ignore*", with a star.
    return any(fnmatch((region.name or "").casefold(), pattern.casefold()) for pattern in patterns)
