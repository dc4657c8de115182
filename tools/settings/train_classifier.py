"""Settings of `regard train classifier`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .resuming import FREE
from .train import BackboneSettings, ImageSettings, ImageTrainerSettings, OptimizerSettings, Share
from .types import Fraction, ImageSource, NonNegativeFloat, NonNegativeInt

__all__ = [
    "AugmentationSettings",
    "ClassifierBackboneSettings",
    "ClassifierOptimizerSettings",
    "TrainClassifierSettings",
]


@dataclass(frozen=True, kw_only=True)
class ClassifierBackboneSettings(BackboneSettings):
    """Which model, and which attention goes into it.

    Attributes:
        attention: block that goes into the model, e.g. van; null keeps the model's own.
        attention_options: the block's own options.
        attention_stages: stages that get the block, counted from 0; null is all.
    """

    attention: str | None = None
    attention_options: dict[str, Any] = field(default_factory=dict)
    attention_stages: list[NonNegativeInt] | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierOptimizerSettings(OptimizerSettings):
    """How weights are updated.

    Attributes:
        layer_decay: factor on the rate from each layer to the one before it, 0-1; null is off.
    """

    layer_decay: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """What training does to images and labels.

    Attributes:
        no_aug: nothing at all to the images.
        crop: zoom into a random part, as for photographs; pad and crop, as for small images; auto is by size.
        scale: smallest and largest share of the area that a zoom shows, 0-1.
        ratio: smallest and largest width over height of a zoom.
        pad_px: border before a padded crop; null is an eighth of the side.
        hflip: probability of mirroring left and right, 0-1; null is 0.5 with zoom and 0 with pad.
        vflip: probability of mirroring top and bottom, 0-1.
        color_jitter: strength of changes of brightness, contrast and saturation, 0-1; 0 is off.
        auto_augment: a policy of timm, e.g. rand-m9-mstd0.5-inc1; it replaces color_jitter.
        interpolation: resampling of a zoom; random is bilinear or bicubic at random.
        erase: probability of erasing a rectangle, 0-1.
        albumentations: transforms of that library by name, e.g. [{ElasticTransform: {alpha: 1.0}}].
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of CutMix; 0 is off. With both on, each batch gets one of them at random.
        label_smoothing: share of the label spread over all classes, 0-1.
    """

    no_aug: bool = False
    crop: Literal["auto", "zoom", "pad"] = "auto"
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])
    pad_px: NonNegativeInt | None = None
    hflip: Fraction | None = None
    vflip: Fraction = 0.0
    color_jitter: NonNegativeFloat = 0.4
    auto_augment: str | None = None
    interpolation: str = "random"
    erase: Fraction = 0.0
    albumentations: list[dict[str, Any]] = field(default_factory=list)
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    label_smoothing: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainClassifierSettings(ImageTrainerSettings):
    """Train an image classifier, with any attention inside, and export the best weights.

    Attributes:
        data: digits; a folder (class folders, labels.csv or IDX files); torchvision:NAME; or hf:NAME.
        out: folder of results; the same command again resumes where it was stopped.
        backbone: the model.
        images: how images are read.
        augmentation: what training does to images and labels.
        optimizer: how weights are updated.
        method: how the model learns: supervised by labels alone; sparsifiner is that paper's two stages, from the
            weights of a dense network (give pretrained or weights).
        method_options: the method's own options, e.g. reconstruction_epochs for sparsifiner.
        best_by: what chooses the best epoch, and what early_stop watches: score is top-1 or mean average precision;
            loss distinguishes epochs where validation images are few.
        channels_last: keep images channels last in memory.
    """

    data: ImageSource = "digits"
    out: str = field(default="runs/train", metadata=FREE)
    backbone: ClassifierBackboneSettings = field(default_factory=ClassifierBackboneSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    optimizer: ClassifierOptimizerSettings = field(default_factory=ClassifierOptimizerSettings)
    method: Literal["supervised", "sparsifiner"] = "supervised"
    method_options: dict[str, Any] = field(default_factory=dict)
    best_by: Literal["score", "loss"] = "score"
    channels_last: bool = False
