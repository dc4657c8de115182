"""Scores of patches, and the two colour scales of heatmaps.

The percentile scale ranks the patches of a slide: it shows where attention is highest, and every slide has hot spots,
also a negative one. The absolute scale has fixed limits, the same on every slide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps

from .patch_raster import percentiles

__all__ = ["SCALES", "Scale", "ScoreMap", "palette", "scale_of"]

ScaleName = Literal["absolute", "percentile"]

#: The two scales, in the order in which they are shown.
SCALES: tuple[ScaleName, ...] = ("absolute", "percentile")


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """One number for each patch of a slide.

    Attributes:
        name: attention, attention_2 (of a branch), prob_tumour ...; columns and measurements are called so.
        values: attention, which sums to one over the slide, or probabilities, 0-1; not a number for a patch that
            could not be read.
        kind: which of the two.
    """

    name: str
    values: Float[np.ndarray, " patches"]
    kind: Literal["attention", "probability"] = "attention"

    def on(self, scale: ScaleName) -> Float[np.ndarray, " patches"]:
        """The values as a scale shows them.

        Attention is given relative to uniform attention over the patches of the slide (1 is uniform), so that slides
        of many and few patches can be compared. Probabilities are unchanged.

        Example:
            >>> ScoreMap("attention", np.array([0.5, 0.25, 0.25, 0.0])).on("absolute")
            array([2., 1., 1., 0.])
        """
        known = np.isfinite(self.values)
        shown = np.full(len(self.values), np.nan)
        if scale == "percentile":
            shown[known] = percentiles(self.values[known])
        elif self.kind == "attention":
            shown[known] = self.values[known] * known.sum()
        else:
            shown[known] = self.values[known]
        return shown


@dataclass(frozen=True)
class Scale:
    """Maps numbers to colours.

    Attributes:
        label: of the colour bar.
        low: what has the first colour, and all below it.
        high: what has the last colour, and all above it.
        logarithmic: equal ratios are equal steps.
        ticks: number -> its words on the colour bar.
    """

    label: str
    low: float
    high: float
    logarithmic: bool
    ticks: Mapping[float, str]

    def share(self, values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """Position on the colour bar, 0-1; NaN stays NaN.

        Example:
            >>> scale_of("attention", "absolute").share(np.array([0.5, 1.0, 8.0, 64.0, 1000.0]))
            array([0. , 0. , 0.5, 1. , 1. ])
        """
        low, high = self.low, self.high
        if self.logarithmic:
            values, low, high = np.log2(np.maximum(values, self.low)), np.log2(low), np.log2(high)
        return ((values - low) / (high - low)).clip(0, 1)

    def paint(self, values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 4"]:
        """Colours in RGBA; what is not a number is clear."""
        painted = palette()[(np.nan_to_num(self.share(values)) * 255).round().astype(int)]
        painted[np.isnan(values)] = 0
        return painted


@cache
def palette() -> UInt8[np.ndarray, "256 4"]:
    """The colours of all scales, from blue to red: turbo without its dark ends, which look like stained tissue."""
    colours = colormaps["turbo"](np.linspace(0.1, 0.92, 256), bytes=True)
    colours.flags.writeable = False
    return colours


def scale_of(kind: Literal["attention", "probability"], scale: ScaleName) -> Scale:
    """The scale for numbers of a kind.

    Args:
        kind: attention or probability.
        scale: absolute or percentile.
    """
    if scale == "percentile":
        ticks = {float(tick): str(tick) for tick in range(0, 101, 25)}
        return Scale("percentile within this slide", 0.0, 100.0, False, ticks)
    if kind == "probability":
        return Scale("probability", 0.0, 1.0, False, {tick / 4: f"{tick / 4:g}" for tick in range(5)})
    ticks = {float(tick): f"{tick}\N{MULTIPLICATION SIGN}" for tick in (1, 2, 4, 8, 16, 32, 64)}
    ticks[1.0], ticks[64.0] = "uniform or less", "64\N{MULTIPLICATION SIGN} or more"
    return Scale("attention relative to uniform (same limits on every slide)", 1.0, 64.0, True, ticks)
