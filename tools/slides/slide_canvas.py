"""What Bokeh draws on a slide's page: tiles, heatmap, outlines and top patches, as JSON that its script embeds.

Bokeh is a dependency that carries its script; the page's own script (page_parts/slide.js) moves and fills what is
built here. Coordinates are pixels of full resolution; y is negative, since Bokeh's axis points upwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .heatmaps.patch_raster import PatchRaster
from .heatmaps.score_map import palette
from .slide_tiles import TILE, TilePyramid

__all__ = ["bokeh_script", "draw_canvas"]


def bokeh_script() -> tuple[str, bytes] | None:
    """The name that Bokeh's script has in a folder of results, and the script; None if Bokeh is not installed."""
    try:
        import bokeh

        name = f"bokeh-{version('bokeh')}.min.js"
    except (ModuleNotFoundError, PackageNotFoundError):
        return None
    script = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
    return (name, script.read_bytes()) if script.is_file() else None


def draw_canvas(
    bounds: tuple[int, int, int, int],
    pyramid: TilePyramid,
    raster: PatchRaster | None,
    rings: Sequence[Sequence[tuple[float, float]]],
    top: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The figure for `Bokeh.embed.embed_item`.

    Args:
        bounds: x, y, width and height of the part that is shown first.
        pyramid: the tiles; the page's script has their addresses.
        raster: shape and index of the heatmap, which the script fills; None for a slide without.
        rings: outlines of the tissue.
        top: patches that are there at full resolution: x, y, side, rank and the address `file`.
    """
    from bokeh.embed import json_item
    from bokeh.models import (
        ColumnDataSource,
        LinearColorMapper,
        PanTool,
        Range1d,
        WheelZoomTool,
        WMTSTileSource,
    )
    from bokeh.plotting import figure

    left, upper, wide, high = bounds
    wheel = WheelZoomTool(zoom_on_axis=False)
    plot: Any = figure(  # Bokeh's own types know fewer options than its figures take
        name="slide",
        tools=[PanTool(), wheel],
        active_scroll=wheel,
        toolbar_location=None,
        sizing_mode="stretch_both",
        x_range=Range1d(start=left, end=left + wide),
        y_range=Range1d(start=-upper - high, end=-upper),
        min_border=0,
        outline_line_color=None,
        background_fill_color="white",
        lod_threshold=None,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    span = TILE * pyramid.downsample * 2**pyramid.finest
    source = WMTSTileSource(
        url="{Z}/{X}_{Y}",
        tile_size=TILE,
        min_zoom=0,
        max_zoom=pyramid.finest,
        initial_resolution=span / TILE,
        x_origin_offset=0,
        y_origin_offset=span,
        wrap_around=False,
    )
    plot.add_tile(source, name="tiles")
    patches = ColumnDataSource(
        {
            "file": [patch["file"] for patch in top],
            "x": [patch["x"] for patch in top],
            "y": [-patch["y"] for patch in top],
            "side": [patch["side"] for patch in top],
            "right": [patch["x"] + patch["side"] for patch in top],
            "bottom": [-patch["y"] - patch["side"] for patch in top],
            "rank": [str(patch["rank"]) for patch in top],
        }
    )
    if top:
        plot.image_url("file", "x", "y", "side", "side", anchor="top_left", source=patches, name="images")
    if raster is not None:
        rows, columns = raster.values.shape
        plot.image(
            image=[np.full((rows, columns), np.nan, np.float32)],
            x=raster.x,
            y=-raster.y - rows * raster.cell,
            dw=columns * raster.cell,
            dh=rows * raster.cell,
            origin="bottom_left",
            color_mapper=LinearColorMapper(
                palette=["#{:02x}{:02x}{:02x}".format(*colour[:3]) for colour in palette().tolist()],
                low=0,
                high=1,
                nan_color=(0, 0, 0, 0.0),
            ),
            name="heatmap",
        )
    plot.multi_line(
        xs=[[x for x, _ in ring] for ring in rings],
        ys=[[-y for _, y in ring] for ring in rings],
        line_color="#141414",
        line_width=1.5,
        name="outlines",
    )
    if top:
        frame: dict[str, Any] = {"source": patches, "fill_color": None, "line_color": "#141414", "line_width": 2}
        plot.quad(left="x", right="right", top="y", bottom="bottom", name="frames", **frame)
        plot.text(
            x="x",
            y="y",
            text="rank",
            source=patches,
            name="ranks",
            text_baseline="bottom",
            text_font_size="13px",
            text_font_style="bold",
            background_fill_color="white",
            background_fill_alpha=0.8,
            padding=2,
        )
    return dict(json_item(plot))
