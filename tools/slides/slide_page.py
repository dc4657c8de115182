"""A page to zoom into a slide, with its heatmap over it.

It opens from disk and by `regard view`. Bokeh does the zooming; where it was missing when the page was written, or its
script is gone, the page shows the slide small and the images of the heatmap.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...datasets.slides.grid import Grid
from ...datasets.slides.slide import Slide, UnreadableTileError
from ...whole_files import whole_folder, write_atomically
from .heatmaps.contact_sheet import read_patch, top_patches
from .heatmaps.files import slide_overview
from .heatmaps.jpeg import encode_image
from .heatmaps.patch_raster import PatchRaster, rasterize
from .heatmaps.rendering import outlines
from .heatmaps.score_map import SCALES, ScoreMap, palette, scale_of
from .page import build_page
from .result import SlideResult, check_id
from .slide_canvas import bokeh_script, draw_canvas
from .slide_tiles import TilePyramid, write_tiles

__all__ = ["write_slide_page"]

#: Longer side of the image that stands in for the zooming, and side of a top patch at most.
_OVERVIEW_PX, _PATCH_PX = 1024, 1024
_QUALITY = 88


def write_slide_page(
    out: Path,
    result: SlideResult,
    slide: Slide,
    grid: Grid | None = None,
    score_maps: Sequence[ScoreMap] = (),
    *,
    regions: Any = None,
    max_px: int = 8192,
    top: int = 12,
    notes: Sequence[str] = (),
) -> str:
    """Write OUT/pages/ID with index.html, tiles and top patches, whole or not at all.

    Args:
        out: the folder of results.
        result: what is known of the slide.
        slide: that is shown.
        grid: indices of the patches; None or an empty one for a slide without tissue.
        score_maps: what can be laid over the slide, the first at once; may be empty.
        regions: the tissue, a shapely geometry in pixels of full resolution.
        max_px: longer side of the slide at the finest zoom; the top patches are there at full resolution.
        top: how many patches of the first score_map those are; 0 for none.
        notes: what must be read first, as in the report.

    Returns:
        The page's path within OUT.

    Raises:
        ValueError: the id names no folder, or the length is less than a tile.
    """
    target = out / "pages" / check_id(result.id)
    with whole_folder(target) as partial:
        _fill(out, partial, result, slide, grid, score_maps, regions, max_px, top, notes)
    return f"pages/{result.id}/index.html"


def _fill(
    out: Path,
    folder: Path,
    result: SlideResult,
    slide: Slide,
    grid: Grid | None,
    score_maps: Sequence[ScoreMap],
    regions: Any,
    max_px: int,
    top: int,
    notes: Sequence[str],
) -> None:
    pyramid = write_tiles(folder / "tiles", slide, max_px)
    (folder / "overview.jpg").write_bytes(encode_image(slide_overview(slide, _OVERVIEW_PX)[0], "JPEG", _QUALITY))
    rings = outlines(regions, max(1.0, pyramid.downsample))
    raster: PatchRaster | None = None
    maps: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    if grid is not None and len(grid) and score_maps:
        for score_map in score_maps:
            laid = {scale: rasterize(grid, score_map.on(scale)) for scale in SCALES}
            raster = raster or laid["absolute"]
            maps.append(_map(score_map, laid))
        shown = _top(folder, slide, grid, score_maps[0], top)
    figure, script = None, bokeh_script()
    if script is not None:
        figure = draw_canvas(slide.bounds, pyramid, raster, rings, shown)
        if not (out / "pages" / script[0]).is_file():
            write_atomically(out / "pages" / script[0], script[1])
    data = _said(result, slide, pyramid) | {
        "notes": notes,
        "outlined": bool(rings),
        "score_maps": maps,
        "raster": _shape(raster),
        "top": shown,
        "palette": ["#{:02x}{:02x}{:02x}".format(*colour[:3]) for colour in palette().tolist()],
        "figure": figure,
        "fallback": "This is an overview only. To zoom, the page needs Bokeh's script, which was not there: "
        'pip install "regard[wsi]" and write the page again.',
    }
    tag = f'<script src="../{script[0]}"></script>' if script else ""
    (folder / "index.html").write_text(build_page("slide", data, bokeh=tag), encoding="utf-8")


def _map(score_map: ScoreMap, laid: dict[Any, PatchRaster]) -> dict[str, Any]:
    """A score map as the page's script expects it."""
    scales = {}
    for name in SCALES:
        scale = scale_of(score_map.kind, name)
        ticks = [[value, words] for value, words in scale.ticks.items()]
        entries = {"label": scale.label, "low": scale.low, "high": scale.high, "logarithmic": scale.logarithmic}
        scales[name] = entries | {"ticks": ticks}
    values = {name: base64.b64encode(one.values.astype("<f4").tobytes()).decode() for name, one in laid.items()}
    return {"name": score_map.name, "kind": score_map.kind, "scales": scales, "maps": values}


def _shape(raster: PatchRaster | None) -> dict[str, Any] | None:
    if raster is None:
        return None
    rows, columns = raster.values.shape
    return {"x": raster.x, "y": raster.y, "cell": raster.cell, "rows": rows, "columns": columns}


def _top(folder: Path, slide: Slide, grid: Grid, score_map: ScoreMap, count: int) -> list[dict[str, Any]]:
    """Write the patches with the highest scores at full resolution; those that are damaged are skipped."""
    shown: list[dict[str, Any]] = []
    (folder / "top").mkdir()
    for index in top_patches(grid, score_map.values, count):
        try:
            pixels = read_patch(slide, grid, index, min(grid.side, _PATCH_PX))
        except UnreadableTileError:
            continue
        rank = len(shown) + 1
        (folder / "top" / f"{rank}.jpg").write_bytes(encode_image(pixels, "JPEG", _QUALITY))
        x, y = grid.coordinates[index].tolist()
        value = score_map.on("absolute")[index]
        score = f"{value:.3g}\N{MULTIPLICATION SIGN}" if score_map.kind == "attention" else f"{value:.2f}"
        shown.append({"x": x, "y": y, "side": grid.side, "rank": rank, "file": f"top/{rank}.jpg", "score": score})
    return shown


def _said(result: SlideResult, slide: Slide, pyramid: TilePyramid) -> dict[str, Any]:
    """The facts about the slide on the page."""
    width, height = slide.levels[0].width, slide.levels[0].height
    spacing = slide.mpp * pyramid.downsample if slide.mpp else None
    detail = f"Finest zoom: {pyramid.downsample:g} pixels of the slide are one here"
    detail += f", {spacing:.2g} \N{MICRO SIGN}m." if spacing else "."
    if pyramid.damaged:
        detail += f" {pyramid.damaged} tiles cannot be read and are white."
    images = [
        (f"../../{result.files[name]}", words)
        for name, words in (
            ("heatmap_absolute", "heatmap, absolute scale"),
            ("heatmap_percentile", "heatmap, percentiles within the slide"),
        )
        if name in result.files
    ]
    facts = [
        ("file", Path(result.path).name),
        ("size", f"{width} \N{MULTIPLICATION SIGN} {height} px"),
        ("resolution", f"{slide.mpp:.4g} \N{MICRO SIGN}m per pixel" if slide.mpp else "not known"),
        ("vendor", slide.vendor),
        ("true class", result.truth),
        ("tissue", f"{100 * result.tissue:.1f} %" if result.tissue is not None else None),
        ("patches", result.patches),
        ("damaged", result.damaged or None),
    ]
    return {
        "id": result.id,
        "status": result.reason or result.status,
        "warnings": result.warnings,
        "probabilities": [(name, value, result.spread.get(name)) for name, value in result.probabilities.items()],
        "width": width,
        "height": height,
        "mpp": slide.mpp,
        "bounds": slide.bounds,
        "tiles": [f"{zoom}/{column}_{row}" for zoom, column, row in pyramid.tiles],
        "facts": facts,
        "detail": detail,
        "overview": ("overview.jpg", "the slide"),
        "images": images,
    }
