"""Where the patches of a slide lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Grid"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Places of square patches of one physical size.

    A patch spans `side` pixels of full resolution, whole pixels, and is resampled to `patch` pixels, so that it has
    `mpp` microns a pixel whatever the slide has.

    Attributes:
        coordinates: x and y of the upper left corners in pixels of full resolution, by rows from the top.
        tissue: share of each patch that is tissue, 0-1.
        patch: side of a patch in pixels, as an encoder takes it.
        side: side of a patch in pixels of full resolution.
        step: from one patch to the next in pixels of full resolution.
        mpp: microns per pixel of the patches, `slide_mpp * side / patch`.
        slide_mpp: microns per pixel of the slide at full resolution.
        width: of the slide at full resolution.
        height: of the slide at full resolution.
    """

    coordinates: Int[np.ndarray, "patches 2"]
    tissue: Float[np.ndarray, " patches"]
    patch: int
    side: int
    step: int
    mpp: float
    slide_mpp: float
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.coordinates)
