"""Training of a head on bags as a Lightning module: loss, regulariser, optimiser, schedule, metrics, predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from lightning.pytorch import LightningModule
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torchmetrics import Metric

from .aem import AEM
from .contract import BagOutput
from .metrics import ClassificationMetrics, SurvivalMetrics, attention_statistics
from .survival import intervals_of, survival_loss
from .trained_head import TrainedHead

__all__ = ["BagBatch", "BagTrainer", "Prediction", "check_survival"]


class BagBatch(NamedTuple):
    """What a step takes.

    Attributes:
        features: of the bags, padded to one length.
        valid: where instances are; None if the bags are of one length.
        targets: class of each bag; for survival its time, and 1 for an event or 0 for censored.
        places: of the bags in their set.
    """

    features: Float[Tensor, "bags instances dim"]
    valid: Bool[Tensor, "bags instances"] | None
    targets: Shaped[Tensor, "bags ..."]
    places: Int[Tensor, "bags"]


class Prediction(NamedTuple):
    """What the head says of a bag that is tested.

    Attributes:
        place: of the bag in its set.
        logits: for each class, or interval of time.
        attention: what `attention_statistics` says.
    """

    place: int
    logits: list[float]
    attention: dict[str, float]


class BagTrainer(LightningModule):
    """Trains and tests a head on batches of bags; use it with any Lightning `Trainer` and loaders of `BagBatch`.

    Logged are `train_loss` and each further term of the head as `train_NAME`; at validation the metrics of
    `regard.heads.metrics` as `val_NAME`. A test fills `predictions` and `tested`, the same in every process.

    Args:
        model: the head, with its features' mean and deviation set.
        aem: the regulariser, for a head with attention.
        class_weights: of the bag's loss, for each class. The mean is over the bags, not over the weights, so that they
            count with one bag a step too.
        optimizer: any optimiser of timm.
        lr: highest learning rate.
        weight_decay: decay of weights; biases and norms are exempt.
        momentum: momentum, for the optimisers that have it.
        schedule: any schedule of timm that needs no metric, applied at every update.
        warmup_epochs: epochs in which the rate rises linearly from `warmup_lr`.
        warmup_lr: rate of the first update.
        min_lr: rate at the end.
        cooldown_epochs: last epochs, at `min_lr`.
        wanted: place of a bag -> which of its instances attention should be on, if known.

    Raises:
        ValueError: the schedule needs a metric, or the task is survival and there are class weights or a head whose
            own losses know classes only.

    Example:
        >>> trainer = BagTrainer(TrainedHead("abmil", 16, ["no", "yes"], {"width": 8}), aem=AEM(weight=0.05))
        >>> trainer.loss(BagBatch(torch.rand(2, 5, 16), None, torch.tensor([0, 1]), torch.arange(2))).shape
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
        wanted: Callable[[int], Bool[Tensor, "instances"] | None] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model", "aem", "wanted", "class_weights"])
        self.survival = model.task == "survival"
        _check(model, class_weights, schedule)
        self.model, self.aem, self.wanted = model, aem, wanted
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.metrics: Metric = (
            SurvivalMetrics(model.cuts) if self.survival else ClassificationMetrics(model.num_classes)
        )
        self.steps = self.seen = 0
        self.sums: dict[str, Any] = {}
        self.predictions: list[Prediction] = []
        self.tested: dict[str, float] = {}

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
        """Targets of a batch as the loss takes them: classes, or intervals of time and events."""
        if not self.survival:
            return targets.long()
        return torch.stack([intervals_of(targets[:, 0], self.model.cuts), targets[:, 1].long()], dim=1)

    def forward(
        self, features: Float[Tensor, "*bags instances dim"], valid: Bool[Tensor, "*bags instances"] | None = None
    ) -> BagOutput:
        """What the head says."""
        return self.model(features, valid)

    def loss(self, batch: BagBatch) -> Float[Tensor, ""]:
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

    def transfer_batch_to_device(self, batch: BagBatch, device: torch.device, dataloader_idx: int) -> BagBatch:
        """Move a batch; Lightning's own way looks into everything that a batch could be."""
        return BagBatch(*(None if part is None else part.to(device, non_blocking=True) for part in batch))  # type: ignore[arg-type]

    def on_train_epoch_start(self) -> None:
        """Start the means of the epoch."""
        self.sums, self.seen = {}, 0

    def on_train_start(self) -> None:
        """Count the steps to come."""
        self.steps = int(self.trainer.estimated_stepping_batches)

    def training_step(self, batch: BagBatch, batch_idx: int) -> Tensor:
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

    def validation_step(self, batch: BagBatch, batch_idx: int) -> None:
        """Measure a batch."""
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all bags."""
        self.log_dict({f"val_{name}": value for name, value in self._computed().items()}, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Forget what was tested before."""
        self.predictions = []

    def test_step(self, batch: BagBatch, batch_idx: int) -> None:
        """Measure a batch, and keep what the head says of each bag."""
        output = self._measure(batch)
        heat = None if output.attention is None else output.mean_attention().cpu()
        for row, place in enumerate(batch.places.tolist()):
            statistics: dict[str, float] = {}
            if heat is not None:
                there = heat[row] if batch.valid is None else heat[row][batch.valid[row].cpu()]
                statistics = attention_statistics(there, self.wanted(place) if self.wanted else None)
            self.predictions.append(Prediction(place, output.logits[row].float().tolist(), statistics))

    def on_test_epoch_end(self) -> None:
        """Bring together what all processes found."""
        self.tested = {name: float(value) for name, value in self._computed().items()}
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, [tuple(found) for found in self.predictions])
            self.predictions = [Prediction(*found) for part in parts for found in part]
        self.predictions = sorted(self.predictions, key=lambda found: found.place)

    def _measure(self, batch: BagBatch) -> BagOutput:
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

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule of timm, stepped at every update."""
        chosen = self.hparams
        rates = {key: chosen[key] for key in ("lr", "weight_decay", "momentum")}
        optimizer = create_optimizer_v2(self.model, opt=chosen["optimizer"], **rates)
        epochs = self.trainer.max_epochs or 1
        if not 0 <= chosen["warmup_epochs"] + chosen["cooldown_epochs"] < epochs:
            raise ValueError(
                f"warmup_epochs {chosen['warmup_epochs']} and cooldown_epochs {chosen['cooldown_epochs']} "
                f"leave nothing of {epochs} epochs"
            )
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=chosen["schedule"],
            num_epochs=epochs - chosen["cooldown_epochs"],
            warmup_epochs=chosen["warmup_epochs"],
            warmup_lr=chosen["warmup_lr"],
            min_lr=chosen["min_lr"],
            step_on_epochs=False,
            updates_per_epoch=max(1, int(self.trainer.estimated_stepping_batches) // epochs),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Set the rate by the number of updates so far."""
        scheduler.step_update(num_updates=self.global_step)


def _check(model: TrainedHead, class_weights: Sequence[float] | None, schedule: str) -> None:
    """Refuse what does not go together."""
    if "plateau" in schedule:
        raise ValueError(f"schedule {schedule!r} needs a metric; use one by time, such as cosine")
    if class_weights is not None and len(class_weights) != model.num_classes:
        raise ValueError(f"{len(class_weights)} class weights came for {model.num_classes} classes; give one for each")
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
