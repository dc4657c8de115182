"""Settings of `regard train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .train_bags import BagSettings
from .train_restoration import RestorationSettings

__all__ = ["AugmentationSettings", "BackboneSettings", "ImageSettings", "OptimizerSettings", "TrainSettings"]


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """Which model, and which attention goes into it.

    Attributes:
        name: any model of timm or Regard; `regard list` shows ours.
        attention: block that goes into the model, e.g. van; null keeps the model's own.
        attention_options: the block's own options.
        attention_stages: stages that get the block, counted from 0; null is all.
        pretrained: start from the model's published weights.
        weights: start from this file, its path or its URL (safetensors, or a checkpoint of the authors).
        options: the model's own keyword arguments, e.g. img_size, patch_size, drop_path_rate, in_chans.
    """

    name: str = "vit_tiny_patch16_224"
    attention: str | None = None
    attention_options: dict[str, Any] = field(default_factory=dict)
    attention_stages: list[int] | None = None
    pretrained: bool = False
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are read.

    Attributes:
        size: height and width in pixels; null is what the model wants.
        mean: mean of the scaled pixels (0-1) for each channel; null is what the model wants.
        std: their deviation for each channel; null is what the model wants.
        interpolation: resampling of images that are measured; null is what the model wants.
        crop_pct: share of the image's side that its centred crop keeps, 0-1; null is what the model wants.
        root: folder of downloaded sets, for torchvision:NAME.
        download: allow a download to it.
        val_fraction: share of the training images held out for validation where the data has no such split, 0-1.
        test_fraction: the same for the test; null is 0.1 where the data is not split at all, and 0 else.
        skip_unreadable: leave unreadable images out, named in the summary, instead of stopping.
        workers: processes that read images, for each device; null is the device's share of the cores.
    """

    size: list[int] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    root: str | None = None
    download: bool = False
    val_fraction: float = 0.1
    test_fraction: float | None = None
    skip_unreadable: bool = False
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """What training does to images and labels.

    Attributes:
        no_aug: nothing at all to the images.
        crop: zoom into a random part, as for photographs; pad and crop, as for small images; auto is by size.
        scale: smallest and largest share of the area that a zoom takes, 0-1.
        ratio: smallest and largest width over height of a zoom.
        pad_px: border before a padded crop; null is an eighth of the side.
        hflip: chance of mirroring left and right, 0-1; null is 0.5 with zoom and 0 with pad.
        vflip: chance of mirroring top and bottom, 0-1.
        color_jitter: strength of changes of brightness, contrast and saturation, 0-1; 0 is off.
        auto_augment: a policy of timm, e.g. rand-m9-mstd0.5-inc1; it takes the place of color_jitter.
        interpolation: resampling of a zoom; random is bilinear or bicubic by chance.
        erase: chance of erasing a rectangle, 0-1.
        albumentations: transforms of that library by name, e.g. [{ElasticTransform: {alpha: 1.0}}].
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of CutMix; 0 is off. With both on, each batch takes one of them by chance.
        label_smoothing: share of the label spread over all classes, 0-1.
    """

    no_aug: bool = False
    crop: Literal["auto", "zoom", "pad"] = "auto"
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])
    pad_px: int | None = None
    hflip: float | None = None
    vflip: float = 0.0
    color_jitter: float = 0.4
    auto_augment: str | None = None
    interpolation: str = "random"
    erase: float = 0.0
    albumentations: list[dict[str, Any]] = field(default_factory=list)
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How weights are updated.

    Attributes:
        name: any optimiser of timm, e.g. adamw, sgd, lamb.
        lr: highest learning rate.
        weight_decay: decay of weights; biases and norms are exempt.
        momentum: momentum, for the optimisers that have it.
        layer_decay: factor on the rate from each layer to the one before it, 0-1; null is off.
        schedule: any schedule of timm, by step, e.g. cosine.
        warmup_epochs: epochs in which the rate rises from `warmup_lr`.
        warmup_lr: rate of the first step.
        min_lr: rate at the end.
        cooldown_epochs: last epochs, at `min_lr`.
        clip_grad: largest norm of the gradient; null is off.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    layer_decay: float | None = None
    schedule: str = "cosine"
    warmup_epochs: int = 5
    warmup_lr: float = 1e-6
    min_lr: float = 1e-6
    cooldown_epochs: int = 0
    clip_grad: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Train an image classifier, with `bags` heads on bags of features, or with `restoration` a restorer of images.

    Attributes:
        data: digits; a folder (class folders, labels.csv or IDX files); torchvision:NAME; or hf:NAME. For bags: ucsb,
            musk1, musk2, elephant; mil_shortcut, mil_noise, mil_rare (rendered); or a folder of features. For
            restoration: photographs (embedded), or a folder of good images.
        out: folder of results; the same command again goes on where it was stopped.
        backbone: the model.
        images: how images are read.
        augmentation: what training does to images and labels.
        optimizer: how weights are updated.
        method: how the model learns: supervised by labels alone; sparsifiner is that paper's two stages, from the
            weights of a dense network (give pretrained or weights).
        method_options: the method's own options, e.g. reconstruction_epochs for sparsifiner.
        epochs: passes over the training images.
        batch_size: images or bags in one update, over all devices and accumulation steps.
        accumulate: parts in which a device works through its share of a batch.
        ema_decay: keep a moving average of the weights with this decay, 0-1, and judge that; null is off.
        best_by: what chooses the best epoch, and what early_stop watches: score is top-1 or mean average precision, or
            for bags their score; loss tells epochs apart where validation images are few.
        early_stop: stop after this many epochs without a better one; null is off.
        seed: seed of everything by chance.
        precision: number format of the computation.
        channels_last: keep images channels last in memory.
        compile: compile the model with torch.compile.
        grad_checkpointing: recompute activations in the backward pass, to save memory.
        accelerator: cpu, gpu, mps ..., or auto.
        devices: devices on each node; auto is all of them.
        nodes: nodes; SLURM and torchrun are found by themselves.
        strategy: Lightning's strategy, e.g. ddp.
        loggers: further loggers by name; metrics.csv is always written.
        limit_batches: at most this many batches an epoch, for a trial run; null is all.
        bags: heads on bags of features instead of an image classifier.
        restoration: a restorer of images instead.
    """

    data: str = "digits"
    out: str = "runs/train"
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    method: Literal["supervised", "sparsifiner"] = "supervised"
    method_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 100
    batch_size: int = 128
    accumulate: int = 1
    ema_decay: float | None = None
    best_by: Literal["score", "loss"] = "score"
    early_stop: int | None = None
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    channels_last: bool = False
    compile: bool = False
    grad_checkpointing: bool = False
    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    loggers: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    limit_batches: int | None = None
    bags: BagSettings | None = None
    restoration: RestorationSettings | None = None
