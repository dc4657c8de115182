"""The rendered cohort on its way to features: written as slides, read back, encoded, as any slides are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from ....datasets.slides.cohort import write_cohort
from ....datasets.slides.feature_file import write_features
from ....datasets.slides.grid import Grid, build_grid
from ....datasets.slides.opening import open_slide
from ....datasets.slides.patches import PatchReader
from ....datasets.slides.slide import Slide
from ....datasets.slides.tissue import find_tissue
from ....vision.encoders import PatchEncoder, encoder_fingerprint

__all__ = ["PATCH", "encode", "patches_of", "write_slides"]

#: Side of a patch in pixels, at 0.5 um/px.
PATCH = 128


def write_slides(folder: Path, part: Literal["train", "test"], count: int) -> list[Path]:
    """The first slides of a part of the cohort; what is there is kept."""
    files = []
    for file in write_cohort(folder, part, count):
        files.append(file)
        if sys.stderr.isatty() or len(files) % 16 == 0:
            sys.stderr.write(f"{part}: {len(files)} of {count} slides\n")
    return files


def patches_of(file: Path) -> Iterator[UInt8[np.ndarray, "batch side side 3"]]:
    """The tissue of a slide in patches."""
    with closing(open_slide(file)) as slide:
        for _, pixels in PatchReader(slide, _grid(slide)):
            yield pixels


def encode(files: list[Path], encoder: PatchEncoder, folder: Path, *, preset: str = "resection") -> list[Path]:
    """Features of slides, one H5 file each.

    Args:
        files: the slides.
        encoder: makes them.
        folder: where to.
        preset: of the tissue; biopsy for small pieces.
    """
    made_from = {"encoder": encoder_fingerprint(encoder)}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file in files:
        target = folder / f"{file.stem}.h5"
        with closing(open_slide(file)) as slide:
            grid = _grid(slide, preset)
            made: dict[str, Any] = {"encoder": encoder.name, "width": encoder.dim, "made_from": made_from}
            write_features(target, _features(encoder, slide, grid), grid, slide=slide, **made)
        written.append(target)
    return written


def _features(encoder: PatchEncoder, slide: Slide, grid: Grid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for indices, pixels in PatchReader(slide, grid):
        with torch.inference_mode():
            yield np.asarray(indices), encoder(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()


def _grid(slide: Slide, preset: str = "resection") -> Grid:
    """As `regard slide` lays it for this encoder."""
    return build_grid(slide, find_tissue(slide, preset=preset), patch=PATCH, mpp=0.5, min_tissue=0.25)
