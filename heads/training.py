"""A bag head as a Lightning module: its loss, regulariser, metrics and predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torchmetrics import Metric

from ..optimisation import ScheduledModule
from .aem import AEM
from .contract import BagOutput
from .metrics import ClassificationMetrics, SurvivalMetrics, attention_statistics
from .survival import intervals_of, survival_loss
from .trained_head import TrainedHead

__all__ = ["BagPrediction", "BagTrainer", "BatchOfBags", "check_survival"]


@runtime_checkable
class BatchOfBags(Protocol):
    """The input of a step: a named tuple of these four, in this order, as `regard.datasets.bags.BagBatch`."""

    features: Float[Tensor, "bags instances dim"]
    valid: Bool[Tensor, "bags instances"] | None
    targets: Shaped[Tensor, "bags ..."]
    indices: Int[Tensor, "bags"]


class BagPrediction(NamedTuple):
    """The head's output for a test bag.

    Attributes:
        bag_index: of the bag in its set.
        logits: for each class, or interval of time.
        attention: what `attention_statistics` gives.
    """

    bag_index: int
    logits: list[float]
    attention: dict[str, float]


class BagTrainer(ScheduledModule):
    """Trains and tests a head on batches of bags; use it with any Lightning `Trainer` and loaders of `BatchOfBags`.

    Logged are `train_loss` and each further term of the head as `train_NAME`; at validation the metrics of
    `regard.heads.metrics` as `val_NAME`. A test fills `predictions` and `tested`, the same in every process.

    Args:
        model: the head, with the mean and std of its features set.
        aem: the regulariser, for a head with attention.
        class_weights: of the bag's loss, for each class. The mean is over the bags, not over the weights, so that they
            also count with one bag a step.
        optimizer: any optimiser of timm.
        lr: highest learning rate.
        weight_decay: decay of weights; biases and norms are exempt.
        momentum: momentum, for the optimisers that have it.
        schedule: any schedule of timm that needs no metric, applied at every update.
        warmup_epochs: epochs in which the rate rises linearly from `warmup_lr`.
        warmup_lr: rate of the first update.
        min_lr: rate at the end.
        cooldown_epochs: last epochs, at `min_lr`.
        instance_labels: index of a bag -> which of its instances attention should be on, if known.

    Raises:
        ValueError: the schedule needs a metric, or the task is survival and there are class weights or a head whose
            own losses need classes.

    Example:
        >>> from types import SimpleNamespace
        >>> trainer = BagTrainer(TrainedHead("abmil", 16, ["no", "yes"], {"width": 8}), aem=AEM(weight=0.05))
        >>> labels, indices = torch.tensor([0, 1]), torch.arange(2)
        >>> batch = SimpleNamespace(features=torch.rand(2, 5, 16), valid=None, targets=labels, indices=indices)
        >>> trainer.loss(batch).shape
        torch.Size([])
    """

    def __init__(
        self,
        model: TrainedHead,
        *,
        aem: AEM | None = None,
        class_weights: Sequence[float] | None = None,
        optimizer: str = "adamw",
        lr: float = 1e-4,
        weight_decay: float = 1e-5,
        momentum: float = 0.9,
        schedule: str = "cosine",
        warmup_epochs: int = 0,
        warmup_lr: float = 1e-6,
        min_lr: float = 0.0,
        cooldown_epochs: int = 0,
        instance_labels: Callable[[int], Bool[Tensor, "instances"] | None] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model", "aem", "instance_labels", "class_weights"])
        self.survival = model.task == "survival"
        self.refuse_plateau(schedule)
        _check(model, class_weights)
        self.model: TrainedHead = model
        self.aem, self.instance_labels = aem, instance_labels
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.metrics: Metric = (
            SurvivalMetrics(model.cuts) if self.survival else ClassificationMetrics(model.num_classes)
        )
        self.steps = self.seen = 0
        self.sums: dict[str, Any] = {}
        self.predictions: list[BagPrediction] = []
        self.tested: dict[str, float] = {}

    #: Some heads have layers for classes that a batch may not have.
    leaves_parameters_unused = True

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0-1."""
        return min(1.0, self.global_step / self.steps) if self.steps > 0 else 0.0

    def criterion(self, logits: Float[Tensor, "rows classes"], labels: Int[Tensor, "rows ..."]) -> Float[Tensor, ""]:
        """The loss of rows of logits; of labels as `labels_of` gives them."""
        logits = logits.float()
        if self.survival:
            return survival_loss(logits, labels)
        if self.class_weights is None:
            return F.cross_entropy(logits, labels)
        return (self.class_weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean()

    def labels_of(self, targets: Shaped[Tensor, "bags ..."]) -> Int[Tensor, "bags ..."]:
        """Targets of a batch as the loss expects them: classes, or intervals of time and events."""
        if not self.survival:
            return targets.long()
        return torch.stack([intervals_of(targets[:, 0], self.model.cuts), targets[:, 1].long()], dim=1)

    def forward(
        self, features: Float[Tensor, "*bags instances dim"], valid: Bool[Tensor, "*bags instances"] | None = None
    ) -> BagOutput:
        """The head's output."""
        return self.model(features, valid)

    def loss(self, batch: BatchOfBags) -> Float[Tensor, ""]:
        """The bag's own loss, the head's further terms, and the regulariser."""
        labels, progress = self.labels_of(batch.targets), self.progress
        if hasattr(self.model.head, "progress"):
            self.model.head.progress = progress  # type: ignore[assignment]
        output = self.model(batch.features, batch.valid, labels=labels, criterion=self.criterion)
        terms = dict(output.losses)
        loss = output.loss(labels, self.criterion)
        if self.aem is not None:
            terms["aem"] = self.aem(output, progress=progress, valid=batch.valid)
            loss = loss + terms["aem"]
        for name, term in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0) + term.detach() * len(labels)
        self.seen += len(labels)
        return loss

    def transfer_batch_to_device(self, batch: BatchOfBags, device: torch.device, dataloader_idx: int) -> BatchOfBags:
        """Move a batch; Lightning's own function is slow, because it searches for every kind of batch."""
        parts = (batch.features, batch.valid, batch.targets, batch.indices)
        return type(batch)(*(None if part is None else part.to(device, non_blocking=True) for part in parts))

    def on_train_epoch_start(self) -> None:
        """Start the means of the epoch."""
        self.sums, self.seen = {}, 0

    def on_train_start(self) -> None:
        """Count the steps to come."""
        self.steps = int(self.trainer.estimated_stepping_batches)

    def training_step(self, batch: BatchOfBags, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(batch)
        if self.trainer.is_last_batch:  # one entry for the epoch, as one for each step takes longer than a small step
            means = {f"train_{name}": total / self.seen for name, total in self.sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """A step of the optimiser, and then the head's own."""
        super().optimizer_step(*arguments, **named)
        if hasattr(self.model.head, "after_step"):
            self.model.head.after_step()  # type: ignore[operator]

    def validation_step(self, batch: BatchOfBags, batch_idx: int) -> None:
        """Measure a batch."""
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all bags."""
        self.log_dict({f"val_{name}": value for name, value in self._computed().items()}, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Clear the predictions of an earlier test."""
        self.predictions = []

    def test_step(self, batch: BatchOfBags, batch_idx: int) -> None:
        """Measure a batch, and keep the prediction of each bag."""
        output = self._measure(batch)
        attention = None if output.attention is None else output.mean_attention().cpu()
        for row, index in enumerate(batch.indices.tolist()):
            statistics: dict[str, float] = {}
            if attention is not None:
                there = attention[row] if batch.valid is None else attention[row][batch.valid[row].cpu()]
                statistics = attention_statistics(there, self.instance_labels(index) if self.instance_labels else None)
            self.predictions.append(BagPrediction(index, output.logits[row].float().tolist(), statistics))

    def on_test_epoch_end(self) -> None:
        """Gather the predictions of all processes."""
        self.tested = {name: float(value) for name, value in self._computed().items()}
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, [tuple(found) for found in self.predictions])
            self.predictions = [BagPrediction(*found) for part in parts for found in part]
        self.predictions = sorted(self.predictions, key=lambda found: found.bag_index)

    def _measure(self, batch: BatchOfBags) -> BagOutput:
        output = self.model(batch.features, batch.valid)
        logits = output.logits.float()
        if self.survival:
            self.metrics.update(logits, batch.targets[:, 0], batch.targets[:, 1] > 0)
        else:
            self.metrics.update(logits, batch.targets.long())
        return output

    def _computed(self) -> dict[str, Tensor]:
        values = self.metrics.compute()
        self.metrics.reset()
        return values


def _check(model: TrainedHead, class_weights: Sequence[float] | None) -> None:
    """Refuse class weights and heads that do not suit the task."""
    if class_weights is not None and len(class_weights) != model.num_classes:
        raise ValueError(
            f"there are {len(class_weights)} class weights for {model.num_classes} classes; give one for each"
        )
    if model.task != "survival":
        return
    if class_weights is not None:
        raise ValueError("survival has no classes to weight; leave class_weights out")
    check_survival(model.name, model.head)


def check_survival(name: str, head: nn.Module) -> None:
    """Refuse a head whose own losses take labels for classes.

    Args:
        name: of the head.
        head: with its options.

    Raises:
        ValueError: it is CLAM with its instance loss, or INS.

    Example:
        >>> from regard.heads import build_head
        >>> check_survival("clam_sb", build_head("clam_sb", 8, 4, samples=0))
    """
    if (name.startswith("clam") and getattr(head, "samples", True)) or name == "ins":
        hint = "give it the option samples: 0, or take another" if name != "ins" else "take another"
        raise ValueError(f"the instance losses of {name} know classes, not survival; {hint}, e.g. abmil or acmil")
