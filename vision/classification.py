"""Image classification as a Lightning module: loss, optimiser, schedule and metrics around any timm model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAveragePrecision,
    MultilabelConfusionMatrix,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)
from torchvision.transforms import v2

from ..optimisation import ScheduledModule

__all__ = ["ImageClassifier"]


class ImageClassifier(ScheduledModule):
    """Trains and measures a classifier; use it with any Lightning `Trainer` and data module.

    Batches are pairs of images and labels: class numbers, or a 0/1 column for each class when `multi_label`.
    Logged at validation and test are `loss`, and `top1`, `top5`, `macro_f1`, `calibration_error` (expected
    calibration error, 15 bins) or for several labels `mean_average_precision`, `macro_f1`, `exact_match`, each as
    `val_...` or `test_...`, all 0-1. After a test, `report` holds them with a table by class and the confusion
    matrix.

    Args:
        model: a timm model, e.g. from `regard.create_model`; its `num_classes` is the number of classes.
        multi_label: whether an image may have several labels, or none.
        optimizer: any optimiser of timm.
        lr: highest learning rate.
        weight_decay: decay of weights; biases, norms and the model's `no_weight_decay` are exempt.
        momentum: momentum, for the optimisers that have it.
        layer_decay: factor on the rate from each layer to the one before it, 0-1.
        schedule: any schedule of timm that needs no metric, applied at every update.
        warmup_epochs: epochs in which the rate rises linearly from `warmup_lr`.
        warmup_lr: rate of the first update.
        min_lr: rate at the end.
        cooldown_epochs: last epochs, at `min_lr`.
        label_smoothing: share of the label spread over all classes, 0-1.
        mixup: alpha of mixup (arXiv:1710.09412); 0 is off.
        cutmix: alpha of CutMix (arXiv:1905.04899); 0 is off. With both, each batch gets one of them at random.
        channels_last: keep images and weights channels last in memory.
        compile: compile the model with `torch.compile`.
        grad_checkpointing: recompute activations in the backward pass.

    Raises:
        ValueError: the model has no classes, or the schedule needs a metric.

    Example:
        >>> import regard
        >>> model = regard.create_model("van_b0", num_classes=10)
        >>> classifier = ImageClassifier(model, lr=1e-3, mixup=0.8)
        >>> classifier(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        multi_label: bool = False,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        momentum: float = 0.9,
        layer_decay: float | None = None,
        schedule: str = "cosine",
        warmup_epochs: int = 5,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-6,
        cooldown_epochs: int = 0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        channels_last: bool = False,
        compile: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model"])
        self.num_classes = int(getattr(model, "num_classes", 0))
        if self.num_classes < 1:
            raise ValueError(f"{type(model).__name__} has no classes; give num_classes when you create it")
        self.refuse_plateau(schedule)
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        if grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        if compile:
            model.compile()
        mixes = [v2.MixUp(alpha=mixup)] if mixup else []
        mixes += [v2.CutMix(alpha=cutmix)] if cutmix else []
        self.mix = v2.RandomChoice(mixes) if mixes else None
        metrics = _multi_label_metrics if multi_label else _multi_class_metrics
        self.val_metrics = metrics(self.num_classes).clone(prefix="val_")
        self.test_metrics = metrics(self.num_classes).clone(prefix="test_")
        self.test_tables = _tables(self.num_classes, multi_label)
        self.report: dict[str, Any] = {}

    @property
    def score(self) -> str:
        """Name of the logged metric that chooses the best checkpoint; larger is better."""
        return "val_mean_average_precision" if self.hparams["multi_label"] else "val_top1"

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.model(images)

    def loss(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Shaped[Tensor, "batch"] | Shaped[Tensor, "batch classes"],
        *,
        smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Cross entropy, or for several labels binary cross entropy; the mean over images.

        Args:
            logits: what the model gave.
            labels: class numbers, or a share (0-1) for each class.
            smoothing: label smoothing, 0-1.
        """
        if self.hparams["multi_label"]:
            target = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One forward pass with mixed images and smoothed labels."""
        images, labels = batch
        if self.mix is not None:
            if labels.ndim == 1:
                labels = F.one_hot(labels, self.num_classes).to(images.dtype)
            images, labels = self.mix(images, labels)
        loss = self.loss(self(images), labels, smoothing=self.hparams["label_smoothing"])
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Measure one batch."""
        self._measure(batch, "val", self.val_metrics)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> Float[Tensor, "batch classes"]:
        """Measure one batch, by class too; gives its logits to callbacks."""
        logits = self._measure(batch, "test", self.test_metrics)
        self.test_tables.update(logits, batch[1].long())
        return logits

    def on_test_epoch_end(self) -> None:
        """Fill `report`."""
        values = {name.removeprefix("test_"): value.item() for name, value in self.test_metrics.compute().items()}
        values["loss"] = self.trainer.callback_metrics["test_loss"].item()
        tables = {name: table.cpu().tolist() for name, table in self.test_tables.compute().items()}
        self.report = {"metrics": values, **tables}
        self.test_tables.reset()

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> Float[Tensor, "batch classes"]:
        """Probabilities."""
        logits = self(batch[0]).float()
        return logits.sigmoid() if self.hparams["multi_label"] else logits.softmax(dim=-1)

    def _measure(self, batch: Sequence[Tensor], stage: str, metrics: MetricCollection) -> Tensor:
        images, labels = batch
        logits = self(images).float()
        metrics.update(logits, labels.long())
        # Log the loss of every image, so that the mean is the same however images are spread over devices.
        self.log(f"{stage}_loss", self.loss(logits, labels), on_epoch=True, sync_dist=True, batch_size=len(images))
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(images))
        return logits


def _multi_class_metrics(classes: int) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "top1": MulticlassAccuracy(classes, average="micro"),
        "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
        "macro_f1": MulticlassF1Score(classes, average="macro"),
        "calibration_error": MulticlassCalibrationError(classes, n_bins=15),
    }
    return MetricCollection(metrics, compute_groups=False)  # it would take top5 for top1 where both begin alike


def _multi_label_metrics(classes: int) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "mean_average_precision": MultilabelAveragePrecision(classes, average="macro"),
        "macro_f1": MultilabelF1Score(classes, average="macro"),
        "exact_match": MultilabelExactMatch(classes),
    }
    return MetricCollection(metrics, compute_groups=False)


def _tables(classes: int, multi_label: bool) -> MetricCollection:
    """Values by class and the confusion: (true, predicted), or (class, true, predicted) for several labels."""
    metrics: dict[str, Metric | MetricCollection]
    if multi_label:
        metrics = {
            "precision": MultilabelPrecision(classes, average="none"),
            "recall": MultilabelRecall(classes, average="none"),
            "f1": MultilabelF1Score(classes, average="none"),
            "average_precision": MultilabelAveragePrecision(classes, average="none"),
            "confusion": MultilabelConfusionMatrix(classes),
        }
    else:
        metrics = {
            "precision": MulticlassPrecision(classes, average="none"),
            "recall": MulticlassRecall(classes, average="none"),
            "f1": MulticlassF1Score(classes, average="none"),
            "confusion": MulticlassConfusionMatrix(classes),
        }
    return MetricCollection(metrics, compute_groups=False)
