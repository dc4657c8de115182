"""The rendered cohort on its way to features: written as slides, read back, encoded, as any slides are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ...datasets.slides.cohort import write_cohort
from ...datasets.slides.feature_file import write_features
from ...datasets.slides.grid import Grid, build_grid
from ...datasets.slides.open_slide import open_slide
from ...datasets.slides.patches import PatchReader
from ...datasets.slides.slide import Slide
from ...datasets.slides.tissue import find_tissue
from ...vision.encoders import PatchEncoder, encoder_fingerprint

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
    slide, grid = _grid(file)
    for _, pixels in PatchReader(slide, grid):
        yield pixels


def encode(files: list[Path], encoder: PatchEncoder, folder: Path) -> list[Path]:
    """Features of slides, one H5 file each; what is there is kept if it is of this encoder.

    Args:
        files: the slides.
        encoder: makes them.
        folder: where to.
    """
    made_from = {"encoder": encoder_fingerprint(encoder)}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file in files:
        slide, grid = _grid(file)
        target = folder / f"{file.stem}.h5"

        def features(slide: Slide = slide, grid: Grid = grid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for places, pixels in PatchReader(slide, grid):
                yield np.asarray(places), _features(encoder, torch.from_numpy(np.ascontiguousarray(pixels)))

        write_features(
            target, features(), grid, slide=slide, encoder=encoder.name, width=encoder.dim, made_from=made_from
        )
        written.append(target)
    return written


@torch.inference_mode()
def _features(encoder: PatchEncoder, patches: Tensor) -> np.ndarray:
    return encoder(patches).numpy()


def _grid(file: Path) -> tuple[Slide, Grid]:
    slide = open_slide(file)
    return slide, build_grid(slide, find_tissue(slide, preset="resection"), patch=PATCH, mpp=0.5, least_tissue=0.25)
