"""Settings of `regard evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .train import ImageSettings

__all__ = ["EvaluateSettings"]


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Measure a trained image classifier, or fixes of a vision-language model; without a model, of the embedded one.

    Attributes:
        model: folder that `regard train` exported (OUT/model), or the OUT folder itself; with a benchmark, a
            vision-language model as in `regard ask`; without both, the embedded one.
        benchmark: what a vision-language model is asked: scene_captions, scene_questions; may be given several times;
            both by default.
        fix: methods beside the baseline, as in `regard ask`; may be given several times; by default a set of methods
            and controls.
        scenes: rendered scenes to caption; a quarter of them are asked 18 questions each.
        resamples: of the bootstrap, over images.
        seed: of the scenes.
        data: as in `regard train`.
        split: part of the data that is measured.
        out: folder of results.
        images: how images are read; what is null comes from the model.
        batch_size: images in one pass.
        precision: number format of the computation.
        accelerator: cpu, gpu, mps ..., or auto.
    """

    model: str | None = None
    benchmark: list[str] = field(default_factory=list, metadata={"repeated": True})
    fix: list[str] = field(default_factory=list, metadata={"repeated": True})
    scenes: int = 200
    resamples: int = 10_000
    seed: int = 0
    data: str = "digits"
    split: Literal["train", "val", "test"] = "test"
    out: str = "runs/evaluate"
    images: ImageSettings = field(default_factory=ImageSettings)
    batch_size: int = 128
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    accelerator: str = "auto"
