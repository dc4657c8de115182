"""Settings of `regard train` for image restoration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["RestorationSettings"]


@dataclass(frozen=True, kw_only=True)
class RestorationSettings:
    """Images, what spoils them, and how a restorer learns to undo it.

    Attributes:
        low: folder of the spoilt partners of `data`, by the same names or with x2, x3 ... at the end; null spoils the
            images of `data` as they are read.
        val: images to measure on after each epoch and at the end, as `data`; null holds images.val_fraction of
            `data` out, or of `photographs` three that are never learnt from.
        val_low: spoilt partners of `val`.
        degradation: bicubic (shrinks as MATLAB does), noise, jpeg, real_world (Real-ESRGAN's two rounds of blur,
            resizing, noise and JPEG), or albumentations.
        options: the degradation's own options, e.g. sigma of noise, quality of jpeg.
        patch_px: side of the spoilt crops.
        crops: crops of an epoch; `epochs` counts in these.
        shrink: factors by one of which an image is shrunk before it is cropped; for few images.
        enlarge: enlarge images smaller than a crop instead of stopping, as the authors do with ImageNet.
        recolour: shuffle the colours of half of the crops; for few images.
        loss: l1, or charbonnier.
        halve_at: shares of the run, 0-1, after which the rate is halved, as the authors do; [] for optimizer.schedule.
        start: random; interpolation, a network that enlarges as bilinear interpolation does; or a file, an exported
            folder or an embedded restorer, the same network for another scale (x4 starts from x2).
        cache: folder that keeps decoded images, for many large ones.
        keep: decoded images that each worker keeps in memory.
    """

    low: str | None = None
    val: str | None = None
    val_low: str | None = None
    degradation: Literal["bicubic", "noise", "jpeg", "real_world", "albumentations"] = "bicubic"
    options: dict[str, Any] = field(default_factory=dict)
    patch_px: int = 64
    crops: int = 16_000
    shrink: list[float] = field(default_factory=lambda: [1.0])
    enlarge: bool = False
    recolour: bool = False
    loss: Literal["l1", "charbonnier"] = "l1"
    halve_at: list[float] = field(default_factory=lambda: [0.5, 0.8, 0.9, 0.95])
    start: str = "random"
    cache: str | None = None
    keep: int = 64
