"""Where a slide has tissue.

A small image of the whole slide tells it: coloured or dark pixels without ink of pens and without dark edges, or what
a segmenter of one's own finds. Areas are in square microns, so that a small biopsy is found on every scanner.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from .geojson import Region, read_regions, split_regions
from .outlines import outlines
from .pen_marks import find_marks
from .segmenter import Segmenter, run_segmenter
from .shapes import merge, polygons, shapely
from .slide import Slide
from .thumbnail import read_thumbnail
from .tissue_mask import PRESETS, TissueOptions, clean_mask, tissue_mask

__all__ = ["Tissue", "find_tissue"]

#: Of the image that is looked at, whatever the preset wants; and at least, for small slides.
_MOST_PX, _LEAST_PX = 4096, 512
#: Microns per pixel of a slide that does not tell them: of 20x, the coarser of the two usual scans.
_USUAL_MPP = 0.5


@dataclass(frozen=True, eq=False)
class Tissue:
    """The tissue of a slide.

    Attributes:
        regions: shapely MultiPolygon in pixels of full resolution; may be empty. Each polygon is a piece.
        marks: MultiPolygon of the ink and dark edges that were taken out.
        width: of the slide at full resolution.
        height: of the slide at full resolution.
        mpp: microns per pixel of the slide, if known.
        pen: share of the scanned part that is ink, 0-1.
        edge: share of the scanned part that is black, or a grey border, 0-1.
        scanned: area of the scanned part in pixels of full resolution.
    """

    regions: Any
    marks: Any
    width: int
    height: int
    mpp: float | None
    pen: float
    edge: float
    scanned: int

    @property
    def pieces(self) -> list[Any]:
        """Polygons from left to right by rows; their places are the numbers in GeoJSON."""
        return sorted(polygons(self.regions), key=lambda piece: (piece.bounds[1], piece.bounds[0]))

    @property
    def share(self) -> float:
        """Share of the scanned part that is tissue, 0-1."""
        return min(1.0, self.regions.area / max(1, self.scanned))

    @property
    def area_mm2(self) -> float | None:
        """Area in square millimetres, if the microns per pixel are known."""
        return None if self.mpp is None else self.regions.area * self.mpp**2 / 1e6

    def to_geojson(self) -> list[Region]:
        """Pieces and marks as regions for `write_regions`; marks are called "Ignore* ink"."""
        pieces = [Region(piece, name="Tissue", tissue_id=number) for number, piece in enumerate(self.pieces)]
        return pieces + [Region(mark, name="Ignore* ink") for mark in polygons(self.marks)]

    def image(self, preview: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """A thumbnail with the outlines of pieces in green and of marks in red.

        Args:
            preview: the whole slide, of any size.
        """
        drawn = preview.copy()
        scale = max(preview.shape[1] / self.width, preview.shape[0] / self.height)
        line = max(1, round(max(preview.shape) / 700))
        for shapes, colour in ((self.marks, (220, 30, 30)), (self.regions, (20, 160, 60))):
            rings = [ring for shape in polygons(shapes) for ring in (shape.exterior, *shape.interiors)]
            points = [np.round(shapely.get_coordinates(ring) * scale * 16 - 8).astype(np.int32) for ring in rings]
            cv2.polylines(drawn, points, True, colour, line, cv2.LINE_AA, 4)
        return drawn


def find_tissue(
    slide: Slide,
    *,
    preset: str | TissueOptions = "biopsy",
    segmenter: Segmenter | None = None,
    regions: Any = None,
    include: Any = None,
    exclude: Any = None,
    pens: bool = True,
) -> Tissue:
    """Find the tissue of a slide.

    Args:
        slide: an open slide; it need not tell its microns per pixel.
        preset: a name of `PRESETS`, or options of one's own.
        segmenter: finds tissue instead of the colours; see `segmenter.py`. Ink and small pieces are still taken out.
        regions: the tissue, if it is known: a shapely geometry or a GeoJSON file, such as contours that TRIDENT wrote
            and somebody edited. Nothing is looked for then.
        include: a geometry or a GeoJSON file; tissue outside is left out.
        exclude: a geometry or a GeoJSON file; tissue inside is left out.
        pens: take ink of pens out.

    Regions of files whose class or name is "Ignore*" or "Exclude*" are left out of the tissue.

    Raises:
        ValueError: no preset has the name, or a GeoJSON file cannot be read.

    Returns:
        Without regions where there is no tissue.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from regard.datasets.slides.image_slide import ImageSlide
        >>> pixels = np.full((400, 600, 3), 244, np.uint8)
        >>> pixels[100:300, 200:500] = 190, 120, 170
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(pixels).save(f"{folder}/a.png")
        ...     round(find_tissue(ImageSlide(f"{folder}/a.png", mpp=0.5)).share, 2)
        0.25
    """
    options = _options(preset)
    full = slide.levels[0]
    scanned = slide.bounds[2] * slide.bounds[3]
    pen_share = edge_share = 0.0
    marks: Any = merge([])
    given, left_out = _geometry(regions)
    if given is None:
        mask, marked, shares, downsample = _look(slide, options, segmenter, pens)
        pen_share, edge_share = shares
        given = outlines(mask, downsample, full.width, full.height)
        marks = outlines(marked, downsample, full.width, full.height)
    inside, also_left_out = _geometry(include)
    without, _ = _geometry(exclude)
    if inside is not None:
        given = merge([shapely.intersection(given, inside)])
    away = merge([left_out, also_left_out, without])
    if not away.is_empty:
        given = merge([shapely.difference(given, away)])
    return Tissue(
        regions=given,
        marks=marks,
        width=full.width,
        height=full.height,
        mpp=slide.mpp,
        pen=pen_share,
        edge=edge_share,
        scanned=scanned,
    )


def _look(
    slide: Slide, options: TissueOptions, segmenter: Segmenter | None, pens: bool
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"], tuple[float, float], float]:
    """Masks of tissue and of marks, the shares of ink and of dark edges, and the masks' downsample."""
    full = slide.levels[0]
    mpp = slide.mpp or (10 / slide.objective if slide.objective else _USUAL_MPP)
    longest = max(full.width, full.height)
    image, downsample = read_thumbnail(
        slide, max(1, min(_MOST_PX, longest, max(_LEAST_PX, round(longest * mpp / options.mpp))))
    )
    spacing_um = mpp * downsample
    scanned = np.zeros(image.shape[:2], bool)
    left, top, width, height = slide.bounds
    scanned[
        int(top / downsample) : round((top + height) / downsample),
        int(left / downsample) : round((left + width) / downsample),
    ] = True
    found = find_marks(image, spacing_um)
    pen = found.pen & scanned if pens else np.zeros_like(scanned)
    edge = found.edge & scanned
    if segmenter is None:
        mask = tissue_mask(image, spacing_um, options, ignore=pen | edge | ~scanned)
    else:
        mask = run_segmenter(slide, segmenter, mpp, image.shape[:2], downsample) & scanned & ~pen & ~edge
    if slide.mpp is None:
        area = slide.bounds[2] * slide.bounds[3] / downsample**2
        least_piece, least_hole = options.least_piece_share * area, options.least_hole_share * area
    else:
        least_piece, least_hole = options.least_piece_um2 / spacing_um**2, options.least_hole_um2 / spacing_um**2
    mask = clean_mask(mask, least_piece=least_piece, least_hole=least_hole) & scanned
    mask &= ~(pen | edge)
    count = max(1, int(scanned.sum()))
    return mask, pen | edge, (float(pen.sum() / count), float(edge.sum() / count)), downsample


def _options(preset: str | TissueOptions) -> TissueOptions:
    if isinstance(preset, TissueOptions):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"no preset of tissue is called {preset!r}; known: {', '.join(PRESETS)}")
    return PRESETS[preset]


def _geometry(given: Any) -> tuple[Any, Any]:
    """What is given as a geometry or a file: its regions and those that are to be left out."""
    if given is None:
        return None, None
    if isinstance(given, str | Path):
        return split_regions(read_regions(given))
    return merge([given]), None
