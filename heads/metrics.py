"""How good a head is on bags, and how it spreads its attention.

F1 is the mean over the classes (macro); the micro mean, which some MIL code reports under that name, is accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_recall,
)
from torchmetrics.utilities import dim_zero_cat

from .survival import concordance, intervals_of, risk, survival_loss

__all__ = ["SCORES", "ClassificationMetrics", "SurvivalMetrics", "attention_statistics"]

#: What is measured in each task, larger being better; what leads stands first.
SCORES: dict[str, list[str]] = {
    "classification": ["auc", "balanced_accuracy", "macro_f1", "accuracy"],
    "survival": ["concordance"],
}


class ClassificationMetrics(Metric):
    """AUC, balanced accuracy, macro F1, accuracy and calibration error, 0-1, and the loss of all bags together.

    `auc` is one class against the rest, mean over the classes that the bags have and have not; nan if there is none.
    `balanced_accuracy` is the mean recall of the classes that the bags have. `macro_f1` leaves out a class that is
    neither there nor predicted. `calibration_error` is the expected calibration error in 15 bins. `loss` is the mean
    cross-entropy, without class weights.

    Args:
        num_classes: at least 2.

    Example:
        >>> metrics = ClassificationMetrics(2)
        >>> metrics.update(torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))
        >>> [(name, round(value.item(), 2)) for name, value in metrics.compute().items()][:4]
        [('auc', 1.0), ('balanced_accuracy', 0.75), ('macro_f1', 0.67), ('accuracy', 0.67)]
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, logits: Float[Tensor, "bags classes"], labels: Int[Tensor, "bags"]) -> None:
        """Add bags."""
        self.logits.append(logits.detach().float())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """The metrics of all bags."""
        logits, labels = dim_zero_cat(self.logits), dim_zero_cat(self.labels)
        chances = logits.softmax(dim=-1)
        classes = self.num_classes
        there = torch.bincount(labels, minlength=classes)
        both = [place for place in range(classes) if 0 < there[place] < len(labels)]
        areas = [binary_auroc(chances[:, place], (labels == place).long()) for place in both]
        recalls = multiclass_recall(chances, labels, classes, average="none")
        return {
            "auc": torch.stack(areas).mean() if areas else chances.new_tensor(math.nan),
            "balanced_accuracy": recalls[there > 0].mean(),
            "macro_f1": multiclass_f1_score(chances, labels, classes, average="macro"),
            "accuracy": multiclass_accuracy(chances, labels, classes, average="micro"),
            "calibration_error": multiclass_calibration_error(chances, labels, classes, n_bins=15),
            "loss": F.cross_entropy(logits, labels),
        }


class SurvivalMetrics(Metric):
    """Harrell's concordance, 0-1, and the loss of all bags together; see `regard.heads.survival`.

    Args:
        cuts: between the intervals of time.

    Example:
        >>> metrics = SurvivalMetrics([1.5])
        >>> metrics.update(torch.zeros(2, 2), torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
        >>> metrics.compute()
        {'concordance': tensor(0.5000), 'loss': tensor(1.0397)}
    """

    full_state_update = False
    logits: list[Tensor]
    times: list[Tensor]
    events: list[Tensor]

    def __init__(self, cuts: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        self.cuts = list(cuts)
        for name in ("logits", "times", "events"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, logits: Float[Tensor, "bags intervals"], times: Float[Tensor, "bags"], events: Bool[Tensor, "bags"]
    ) -> None:
        """Add bags."""
        self.logits.append(logits.detach().float())
        self.times.append(times)
        self.events.append(events)

    def compute(self) -> dict[str, Tensor]:
        """The metrics of all bags."""
        logits, times, events = (dim_zero_cat(part) for part in (self.logits, self.times, self.events))
        targets = torch.stack([intervals_of(times, self.cuts), events.long()], dim=1)
        return {"concordance": concordance(risk(logits), times, events), "loss": survival_loss(logits, targets)}


def attention_statistics(
    heat: Float[Tensor, "instances"], wanted: Bool[Tensor, "instances"] | None = None, top: int = 10
) -> dict[str, float]:
    """How a bag's attention is spread.

    Args:
        heat: weights that sum to one, as `BagOutput.heat` gives them, without padding.
        wanted: which instances it should look at, where that is known.
        top: of how many of the largest weights the sum is told.

    Returns:
        `entropy` over ln N, 0 (all on one) to 1 (even), and `top_mass`, the share of the `top` largest weights; with
        `wanted`, `instance_auc` of the weights. What is not defined (one instance; none or all wanted) is left out.

    Example:
        >>> attention_statistics(torch.tensor([0.25, 0.25, 0.25, 0.25]), torch.tensor([True, False, False, False]), 2)
        {'entropy': 1.0, 'top_mass': 0.5, 'instance_auc': 0.5}
    """
    weights = heat.detach().double()
    found = {}
    if len(weights) > 1:
        found["entropy"] = (-torch.special.xlogy(weights, weights).sum() / math.log(len(weights))).item()
    found["top_mass"] = weights.topk(min(top, len(weights))).values.sum().item()
    if wanted is not None and 0 < int(wanted.sum()) < len(wanted):
        found["instance_auc"] = binary_auroc(weights, wanted.long().to(weights.device)).item()
    return found
