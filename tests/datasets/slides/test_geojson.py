import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from regard.datasets.slides.geojson import Region, read_regions, split_regions, write_regions
from regard.datasets.slides.shapes import shapely

RING = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}
FEATURE = {"type": "Feature", "geometry": POLYGON, "properties": {}}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_written_is_closed_valid_typed_and_the_same_each_time(tmp_path: Path) -> None:
    holed = shapely.box(0, 0, 90, 90).difference(shapely.box(30, 30, 50, 50))
    regions = [Region(holed, "Tissue", 0), Region(shapely.MultiPolygon([shapely.box(200, 0, 220, 9)]), "Ignore* ink")]
    write_regions(tmp_path / "a.geojson", regions, namespace="slide")
    write_regions(tmp_path / "b.geojson", regions, namespace="slide")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    content = json.loads((tmp_path / "a.geojson").read_text())
    for feature in content["features"]:
        assert uuid.UUID(feature["id"]).version == 5
        assert feature["properties"]["objectType"] == "annotation"
        assert all(ring[0] == ring[-1] for ring in feature["geometry"]["coordinates"])
        assert shapely.from_geojson(json.dumps(feature["geometry"])).is_valid
    back = read_regions(tmp_path / "a.geojson")
    assert [(one.name, one.tissue_id, one.geometry.area) for one in back] == [
        ("Tissue", 0, 90 * 90 - 400),
        ("Ignore* ink", None, 180),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.geojson", "b.geojson"]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [FEATURE]},
        {"type": "FeatureCollection", "crs": {"type": "name"}, "features": [FEATURE]},
        [FEATURE],
        FEATURE,
        POLYGON,
        {"type": "GeometryCollection", "geometries": [POLYGON, {"type": "Point", "coordinates": [1, 2]}]},
        {"type": "MultiPolygon", "coordinates": [[RING]]},
        {"type": "Polygon", "coordinates": [RING[:-1]]},
    ],
)
def test_every_form_of_file_is_read(tmp_path: Path, content: Any) -> None:
    assert [one.geometry.area for one in read_regions(write(tmp_path / "a.geojson", content))] == [100]


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}, "Tumor"),
        ({"object_type": "annotation", "classification": {"name": "Tumor", "colorRGB": -3670016}}, "Tumor"),
        ({"classification": "Tumor", "name": "my own"}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"name": "my own"}, "my own"),
        ({"tissue_id": 3}, None),
        (None, None),
    ],
)
def test_classes_of_old_and_new_exports_are_read(tmp_path: Path, properties: Any, name: str | None) -> None:
    (region,) = read_regions(write(tmp_path / "a.geojson", FEATURE | {"properties": properties}))
    assert region.name == name
    assert region.tissue_id == (properties or {}).get("tissue_id")


def test_a_ring_that_crosses_itself_is_repaired(tmp_path: Path) -> None:
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    (region,) = read_regions(write(tmp_path / "a.geojson", bow))
    assert region.geometry.is_valid
    assert region.geometry.area == pytest.approx(50)


def test_names_say_what_is_left_out() -> None:
    boxes = {name: Region(shapely.box(number * 10, 0, number * 10 + 5, 5), name) for number, name in enumerate("abc")}
    regions = [*boxes.values(), Region(shapely.box(90, 0, 91, 1), "ignore*"), Region(shapely.box(95, 0, 96, 1))]
    assert [one.area for one in split_regions(regions)] == [76, 1]
    assert [one.area for one in split_regions(regions, include=["A", "b"], exclude=["b"])] == [25, 25]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not GeoJSON"),
        ("[" * 100_000, "is not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[NaN, 0], [1, 0], [1, 1]]]}', "has the point"),
        ('{"type": "Polygon", "coordinates": [[[1e999, 0], [1, 0], [1, 1]]]}', "has the point"),
        ('{"type": "Polygon", "coordinates": [[["a", 0], [1, 0], [1, 1]]]}', "has the point"),
        ('{"type": "Polygon", "coordinates": [7]}', "not a list of points"),
        ('{"type": "Polygon", "coordinates": 7}', "without rings"),
        ('{"type": "MultiPolygon", "coordinates": 7}', "without rings"),
        ('{"type": "GeometryCollection", "geometries": 7}', "not GeoJSON"),
        ('{"type": "FeatureCollection", "features": 7}', "not GeoJSON"),
        ('{"kind": "Polygon"}', "type 'None'"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
    ],
)
def test_invalid_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_regions(write(tmp_path / "a.geojson", content))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        read_regions(tmp_path / "none.geojson")
