"""A slide under its heatmap as a pyramidal TIFF, which slide viewers open as a slide in its own right.

Pixels are RGB, since viewers disagree about transparency; the pages are what OpenSlide, QuPath (by Bio-Formats or
OpenSlide) and tifffile take for levels of one image: tiled JPEG, finest first, each with its resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ....datasets.slides.slide import Slide, UnreadableTileError
from ....whole_files import whole_file
from .patch_raster import PatchRaster
from .region import read_scaled
from .rendering import overlay_heatmap
from .score_map import Scale

__all__ = ["write_overlay"]

_TILE = 256
_QUALITY = 85


def write_overlay(
    path: Path,
    slide: Slide,
    raster: PatchRaster,
    scale: Scale,
    *,
    downsample: int = 8,
    opacity: float = 0.5,
) -> None:
    """Write the slide with the heatmap over it, tile by tile.

    Its physical size is the slide's, if the slide's microns per pixel are known.

    Args:
        path: file to write.
        slide: that lies below.
        raster: the values, as the scale shows them.
        scale: what their colours are.
        downsample: pixels of full resolution that one of the finest level spans; each further level has a quarter of
            the pixels.
        opacity: of the heatmap, 0-1.

    Raises:
        ModuleNotFoundError: tifffile or imagecodecs is missing.
        ValueError: the downsample is below 1, or the opacity is not in 0-1.
    """
    if downsample < 1:
        raise ValueError(f"the overlay's downsample is {downsample}; give 1 (full resolution) or more")
    try:
        import imagecodecs  # noqa: F401  # tifffile's JPEG
        import tifffile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{error.name} is missing, which writes TIFF: pip install "regard[wsi]"') from error
    width, height = slide.levels[0].width, slide.levels[0].height
    finest = max(1, math.ceil(max(width, height) / downsample / _TILE))
    with whole_file(path) as partial, tifffile.TiffWriter(partial, bigtiff=True) as file:
        for index in range(math.ceil(math.log2(finest)) + 1):
            spans = downsample * 2**index
            rows, columns = math.ceil(height / spans), math.ceil(width / spans)
            resolution = (1e4 / (slide.mpp * spans),) * 2 if slide.mpp else (1, 1)
            file.write(
                _tiles(slide, raster, scale, opacity, spans, rows, columns),
                shape=(rows, columns, 3),
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": _QUALITY},
                resolution=resolution,
                resolutionunit="CENTIMETER" if slide.mpp else "NONE",
                subfiletype=1 if index else 0,
                metadata=None,
            )


def _tiles(
    slide: Slide, raster: PatchRaster, scale: Scale, opacity: float, spans: int, rows: int, columns: int
) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
    """The tiles of a level by rows; damaged parts of the slide are white below the heatmap."""
    for top in range(0, rows, _TILE):
        for left in range(0, columns, _TILE):
            x, y = left * spans, top * spans
            try:
                below = read_scaled(slide, x, y, _TILE, _TILE, float(spans))
            except UnreadableTileError:
                below = np.full((_TILE, _TILE, 3), 255, np.uint8)
            shifted = PatchRaster(x=raster.x - x, y=raster.y - y, cell=raster.cell, values=raster.values)
            yield overlay_heatmap(below, float(spans), shifted, scale, opacity)
