"""Settings of `regard train restorer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .resuming import FREE
from .train import BackboneSettings, ImageTrainerSettings, Share
from .types import HighQualityImages, NonNegativeInt, PositiveFloat, PositiveInt, Within

__all__ = ["Degradation", "TrainRestorerSettings"]

Degradation = Literal["bicubic", "noise", "jpeg", "real_world", "albumentations"]


@dataclass(frozen=True, kw_only=True)
class TrainRestorerSettings(ImageTrainerSettings):
    """Train a network that enlarges or cleans images, and export the best weights.

    Attributes:
        data: high-quality images: a folder; or photographs (embedded).
        out: folder of results; the same command again resumes where it was stopped.
        backbone: the model.
        lq: folder of the low-quality partners of `data`, by the same names or with x2, x3 ... at the end; null degrades
            the images of `data` as they are read.
        val: images to measure on after each epoch and at the end, as `data`; null holds val_fraction of `data` out, or
            of `photographs` three that are never trained on.
        val_lq: low-quality partners of `val`.
        val_fraction: share of `data` that is held out where `val` is not given, 0-1.
        degradation: bicubic (shrinks as MATLAB does), noise, jpeg, real_world (Real-ESRGAN's two rounds of blur,
            resizing, noise and JPEG), or albumentations.
        degradation_options: the degradation's own options, e.g. sigma of noise, quality of jpeg.
        patch_px: side of the low-quality crops.
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
        workers: processes that read images, for each device; null is the device's share of the cores.
    """

    data: HighQualityImages = "photographs"
    out: str = field(default="runs/train", metadata=FREE)
    backbone: BackboneSettings = field(default_factory=lambda: BackboneSettings(name="hat_tiny_x2"))
    lq: str | None = None
    val: str | None = None
    val_lq: str | None = None
    val_fraction: Share = 0.1
    degradation: Degradation = "bicubic"
    degradation_options: dict[str, Any] = field(default_factory=dict)
    patch_px: PositiveInt = 64
    crops: PositiveInt = 16_000
    shrink: list[PositiveFloat] = field(default_factory=lambda: [1.0])
    enlarge: bool = False
    recolour: bool = False
    loss: Literal["l1", "charbonnier"] = "l1"
    halve_at: list[Annotated[float, Within(0, 1, open_low=True, open_high=True)]] = field(
        default_factory=lambda: [0.5, 0.8, 0.9, 0.95]
    )
    start: str = "random"
    cache: str | None = field(default=None, metadata=FREE)
    keep: NonNegativeInt = field(default=64, metadata=FREE)
    workers: NonNegativeInt | None = field(default=None, metadata=FREE)

    def check_together(self) -> None:
        """Refuse settings that do not go together."""
        if self.val_lq is not None and self.val is None:
            raise ValueError("--val_lq are the partners of --val, which is missing")
        if self.halve_at != sorted(self.halve_at):
            raise ValueError(f"--halve_at is {self.halve_at}; give shares in ascending order")
