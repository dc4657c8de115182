"""Segments the tissue of a slide.

It is found on a thumbnail: coloured or dark pixels without pen marks and dark edges, or the result of your own
segmenter. Areas are in square microns, so that a small biopsy is found on every scanner.
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

#: Longer side of the thumbnail, whatever the preset: at most, and at least for small slides.
_MAX_PX, _MIN_PX = 4096, 512
#: Microns per pixel of a slide without them: those of 20x, the coarser of the two common scans.
_DEFAULT_MPP = 0.5


@dataclass(frozen=True, eq=False)
class Tissue:
    """The tissue of a slide.

    Attributes:
        regions: shapely MultiPolygon in pixels of full resolution; may be empty. Each polygon is one piece of tissue.
        marks: MultiPolygon of the pen marks and dark edges that were removed.
        width: of the slide at full resolution.
        height: of the slide at full resolution.
        mpp: microns per pixel of the slide, if known.
        pen: share of the scanned area that is pen marks, 0-1.
        edge: share of the scanned area that is black, or a grey border, 0-1.
        scanned: scanned area in pixels of full resolution.
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
        """Polygons from top to bottom; their indices are the numbers in GeoJSON."""
        return sorted(polygons(self.regions), key=lambda piece: (piece.bounds[1], piece.bounds[0]))

    @property
    def share(self) -> float:
        """Share of the scanned area that is tissue, 0-1."""
        return min(1.0, self.regions.area / max(1, self.scanned))

    def to_geojson(self) -> list[Region]:
        """Pieces and marks as regions for `write_regions`; the class of marks is "Ignore* ink"."""
        pieces = [Region(piece, name="Tissue", tissue_id=number) for number, piece in enumerate(self.pieces)]
        return pieces + [Region(mark, name="Ignore* ink") for mark in polygons(self.marks)]

    def image(self, thumbnail: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the outlines of tissue in green and of marks in red.

        Args:
            thumbnail: of the whole slide, of any size.
        """
        drawn = thumbnail.copy()
        scale = max(thumbnail.shape[1] / self.width, thumbnail.shape[0] / self.height)
        line = max(1, round(max(thumbnail.shape) / 700))
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
        slide: an open slide; its microns per pixel may be unknown.
        preset: a name of `PRESETS`, or custom options.
        segmenter: used instead of colours; see `segmenter.py`. Pen marks and small pieces are still removed.
        regions: the tissue, if it is known: a shapely geometry or a GeoJSON file, such as edited contours of TRIDENT.
            Nothing is segmented then.
        include: a geometry or a GeoJSON file; tissue outside is excluded.
        exclude: a geometry or a GeoJSON file; tissue inside is excluded.
        pens: remove pen marks.

    Regions of files whose class or name is "Ignore*" or "Exclude*" are excluded from the tissue.

    Raises:
        ValueError: an unknown preset, or a GeoJSON file that cannot be read.

    Returns:
        The tissue; its regions are empty where there is none.

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
        mask, mark_mask, shares, downsample = _segment(slide, options, segmenter, pens)
        pen_share, edge_share = shares
        given = outlines(mask, downsample, full.width, full.height)
        marks = outlines(mark_mask, downsample, full.width, full.height)
    inside, also_left_out = _geometry(include)
    without, _ = _geometry(exclude)
    if inside is not None:
        given = merge([shapely.intersection(given, inside)])
    excluded = merge([left_out, also_left_out, without])
    if not excluded.is_empty:
        given = merge([shapely.difference(given, excluded)])
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


def _segment(
    slide: Slide, options: TissueOptions, segmenter: Segmenter | None, pens: bool
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"], tuple[float, float], float]:
    """Masks of tissue and of marks, the shares of pen marks and dark edges, and the masks' downsample."""
    full = slide.levels[0]
    mpp = slide.mpp or (10 / slide.objective if slide.objective else _DEFAULT_MPP)
    longer_side = max(full.width, full.height)
    image, downsample = read_thumbnail(
        slide, max(1, min(_MAX_PX, longer_side, max(_MIN_PX, round(longer_side * mpp / options.mpp))))
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
        min_piece, min_hole = options.min_piece_share * area, options.min_hole_share * area
    else:
        min_piece, min_hole = options.min_piece_um2 / spacing_um**2, options.min_hole_um2 / spacing_um**2
    mask = clean_mask(mask, min_piece=min_piece, min_hole=min_hole) & scanned
    mask &= ~(pen | edge)
    count = max(1, int(scanned.sum()))
    return mask, pen | edge, (float(pen.sum() / count), float(edge.sum() / count)), downsample


def _options(preset: str | TissueOptions) -> TissueOptions:
    if isinstance(preset, TissueOptions):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"unknown tissue preset {preset!r}; give {', '.join(PRESETS)}")
    return PRESETS[preset]


def _geometry(given: Any) -> tuple[Any, Any]:
    """Regions of a geometry or a file, and those to exclude."""
    if given is None:
        return None, None
    if isinstance(given, str | Path):
        return split_regions(read_regions(given))
    return merge([given]), None
