"""Settings that trainings share: model, images, optimiser and trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .resuming import FREE
from .types import Checked, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Within

__all__ = ["BackboneSettings", "ImageSettings", "ImageTrainerSettings", "OptimizerSettings", "Share", "TrainerSettings"]

#: 0 <= x < 1.
Share = Annotated[float, Within(0, 1, open_high=True)]


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """Which model.

    Attributes:
        name: any model of timm or Regard; `regard list` shows ours.
        pretrained: start from the model's published weights.
        weights: start from this file, its path or its URL (safetensors, or a checkpoint of the authors).
        options: the model's own keyword arguments, e.g. img_size, patch_size, drop_path_rate, in_chans.
    """

    name: str = "vit_tiny_patch16_224"
    pretrained: bool = False
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are read.

    Attributes:
        size: height and width in pixels; null is what the model needs.
        mean: mean of the scaled pixels (0-1) for each channel; null is what the model needs.
        std: their standard deviation for each channel; null is what the model needs.
        interpolation: resampling of images that are measured; null is what the model needs.
        crop_pct: share of the image's side that its centred crop keeps, 0-1; null is what the model needs.
        root: folder of downloaded sets, for torchvision:NAME.
        download: allow a download to it.
        val_fraction: share of the training images held out for validation where the data has no such split, 0-1.
        test_fraction: the same for the test; null is 0.1 where the data has no splits at all, else 0.
        skip_unreadable: skip unreadable images, which the summary names, instead of stopping.
        workers: processes that read images, for each device; null is the device's share of the cores.
    """

    size: list[PositiveInt] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str | None = None
    crop_pct: Fraction | None = None
    root: str | None = field(default=None, metadata=FREE)
    download: bool = field(default=False, metadata=FREE)
    val_fraction: Share = 0.1
    test_fraction: Share | None = None
    skip_unreadable: bool = False
    workers: NonNegativeInt | None = field(default=None, metadata=FREE)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How weights are updated.

    Attributes:
        name: any optimiser of timm, e.g. adamw, sgd, lamb.
        lr: highest learning rate.
        weight_decay: decay of weights; biases and norms are exempt.
        momentum: momentum, for the optimisers that have it.
        schedule: any schedule of timm, by step, e.g. cosine.
        warmup_epochs: epochs in which the rate rises from `warmup_lr`.
        warmup_lr: rate of the first step.
        min_lr: rate at the end.
        cooldown_epochs: last epochs, at `min_lr`.
        clip_grad: largest norm of the gradient; null is off.
    """

    name: str = "adamw"
    lr: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    momentum: NonNegativeFloat = 0.9
    schedule: str = "cosine"
    warmup_epochs: NonNegativeInt = 5
    warmup_lr: NonNegativeFloat = 1e-6
    min_lr: NonNegativeFloat = 1e-6
    cooldown_epochs: NonNegativeInt = 0
    clip_grad: NonNegativeFloat | None = None


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(Checked):
    """How long and on what a model is trained.

    Attributes:
        optimizer: how weights are updated.
        epochs: passes over the training data.
        batch_size: images or bags in one update, over all devices and accumulation steps.
        accumulate: steps in which a device works through its share of a batch.
        early_stop: stop after this many epochs without a better one; null is off.
        seed: seed of all random generators.
        precision: number format of the computation.
        accelerator: cpu, gpu, mps ..., or auto.
        devices: devices on each node; auto is all of them.
        nodes: nodes; SLURM and torchrun are detected.
        strategy: Lightning's strategy, e.g. ddp.
        limit_batches: at most this many batches an epoch, for a trial run; null is all.
    """

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 128
    accumulate: PositiveInt = 1
    early_stop: PositiveInt | None = None
    seed: NonNegativeInt = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    accelerator: str = field(default="auto", metadata=FREE)
    devices: str = field(default="auto", metadata=FREE)
    nodes: PositiveInt = field(default=1, metadata=FREE)
    strategy: str = field(default="auto", metadata=FREE)
    limit_batches: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class ImageTrainerSettings(TrainerSettings):
    """How a network of images is trained.

    Attributes:
        ema_decay: keep a moving average of the weights with this decay, 0-1, and measure that; null is off.
        compile: compile the model with torch.compile.
        grad_checkpointing: recompute activations in the backward pass, to save memory.
        loggers: further loggers by name; metrics.csv is always written.
    """

    ema_decay: Annotated[float, Within(0, 1, open_low=True, open_high=True)] | None = None
    compile: bool = False
    grad_checkpointing: bool = False
    loggers: list[Literal["tensorboard", "wandb"]] = field(default_factory=list, metadata=FREE)
