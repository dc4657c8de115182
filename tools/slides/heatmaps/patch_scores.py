"""Scores of patches for other programs: a table with wsinfer's columns, and tiles that QuPath opens.

Sources: wsinfer's model-outputs-csv (minx, miny, width, height, prob_CLASS), and QuPath 0.5's GeoJSON (objectType,
isLocked, measurements as a dictionary).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from ....datasets.slides.grid import Grid
from ....whole_files import whole_file
from .score_map import ScoreMap

__all__ = ["write_score_table", "write_score_tiles"]

#: Space of the names that tiles' ids are made of; the same slide and index give the same id.
_NAMES = UUID("6f1d5a6e-0d3c-5b1e-9a52-7d3f0f2a9c11")


def _columns(score_maps: Sequence[ScoreMap]) -> dict[str, list[float | None]]:
    """Column -> a number for each patch, None where there is none."""
    columns: dict[str, list[float | None]] = {}
    for score_map in score_maps:
        numbers = {score_map.name: score_map.values}
        if score_map.kind == "attention":
            numbers[f"{score_map.name}_relative"] = score_map.on("absolute")
        numbers[f"{score_map.name}_percentile"] = score_map.on("percentile")
        for name, values in numbers.items():
            columns[name] = [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
    return columns


def write_score_table(path: Path, grid: Grid, score_maps: Sequence[ScoreMap]) -> None:
    """Write a CSV: minx, miny, width and height in pixels of full resolution, and the scores.

    Attention has a column for its share of the slide, one relative to uniform attention
    (`_relative`), and one for its percentile; an empty cell is a patch that could not be read.

    Args:
        path: file to write.
        grid: indices of the patches.
        score_maps: their scores.
    """
    columns = _columns(score_maps)
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["minx", "miny", "width", "height", *columns])
        for index, (x, y) in enumerate(grid.coordinates.tolist()):
            writer.writerow([x, y, grid.side, grid.side, *(values[index] for values in columns.values())])


def write_score_tiles(path: Path, slide_id: str, grid: Grid, score_maps: Sequence[ScoreMap]) -> None:
    """Write a GeoJSON of locked tiles with the scores as measurements (QuPath: Measure > Show measurement maps).

    Args:
        path: file to write.
        slide_id: name of the slide; with the index of a tile it makes the tile's id.
        grid: indices of the patches; those over the edge of the slide reach beyond it.
        score_maps: their scores.
    """
    columns = _columns(score_maps)
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for index, (x, y) in enumerate(grid.coordinates.tolist()):
            numbers = {name: values[index] for name, values in columns.items() if values[index] is not None}
            feature = _tile(f"{slide_id}/{x}/{y}/{grid.side}", x, y, grid.side, numbers)
            file.write(("," if index else "") + "\n" + json.dumps(feature, separators=(",", ":")))
        file.write("\n]}\n")


def _tile(name: str, x: int, y: int, side: int, measurements: dict[str, Any]) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "id": str(uuid5(_NAMES, name)),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "tile", "isLocked": True, "measurements": measurements},
    }
