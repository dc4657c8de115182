"""Settings of `regard evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .train import ImageSettings

__all__ = ["EvaluateSettings"]


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Measure a trained image classifier.

    Attributes:
        model: folder that `regard train` exported (OUT/model), or the OUT folder itself.
        data: as in `regard train`.
        split: part of the data that is measured.
        out: folder of results.
        images: how images are read; what is null comes from the model.
        batch_size: images in one pass.
        precision: number format of the computation.
        accelerator: cpu, gpu, mps ..., or auto.
    """

    model: str = "runs/train"
    data: str = "digits"
    split: Literal["train", "val", "test"] = "test"
    out: str = "runs/evaluate"
    images: ImageSettings = field(default_factory=ImageSettings)
    batch_size: int = 128
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    accelerator: str = "auto"
