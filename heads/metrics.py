"""Metrics of bag classification and survival, and statistics of attention.

F1 is the mean over the classes (macro); the micro mean, which some MIL code reports as F1, is accuracy.
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

#: Metrics of each task for which larger is better; the first selects the best weights.
SCORES: dict[str, list[str]] = {
    "classification": ["auc", "balanced_accuracy", "macro_f1", "accuracy"],
    "survival": ["concordance"],
}


class ClassificationMetrics(Metric):
    """AUC, balanced accuracy, macro F1, accuracy and calibration error, 0-1, and the loss, over all bags.

    `auc` is the mean of the one-versus-rest AUC over the classes with positive and negative bags; NaN if there is none.
    `balanced_accuracy` is the mean recall over the classes that occur. `macro_f1` omits classes that neither
    occur nor are predicted. `calibration_error` is the expected calibration error in 15 bins. `loss` is the mean
    cross-entropy, without class weights.

    Args:
        num_classes: number of classes, at least 2.

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
        probabilities = logits.softmax(dim=-1)
        classes = self.num_classes
        counts = torch.bincount(labels, minlength=classes)
        both = [index for index in range(classes) if 0 < counts[index] < len(labels)]
        areas = [binary_auroc(probabilities[:, index], (labels == index).long()) for index in both]
        recalls = multiclass_recall(probabilities, labels, classes, average="none")
        return {
            "auc": torch.stack(areas).mean() if areas else probabilities.new_tensor(math.nan),
            "balanced_accuracy": recalls[counts > 0].mean(),
            "macro_f1": multiclass_f1_score(probabilities, labels, classes, average="macro"),
            "accuracy": multiclass_accuracy(probabilities, labels, classes, average="micro"),
            "calibration_error": multiclass_calibration_error(probabilities, labels, classes, n_bins=15),
            "loss": F.cross_entropy(logits, labels),
        }


class SurvivalMetrics(Metric):
    """Harrell's concordance, 0-1, and the loss, over all bags; see `regard.heads.survival`.

    Args:
        cuts: boundaries between the time intervals.

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
    attention: Float[Tensor, "instances"], relevant: Bool[Tensor, "instances"] | None = None, top: int = 10
) -> dict[str, float]:
    """Statistics of how concentrated the attention of a bag is.

    Args:
        attention: weights that sum to one, as `BagOutput.mean_attention` returns them, without padding.
        relevant: which instances are relevant, if that is known.
        top: number of largest weights in `top_mass`.

    Returns:
        `entropy` divided by ln N, 0 (one instance) to 1 (uniform), and `top_mass`, the sum of the `top` largest
        weights; with `relevant`, `instance_auc` of the weights. A statistic that is not defined (one instance; none or
        all relevant) is omitted.

    Example:
        >>> attention_statistics(torch.tensor([0.25, 0.25, 0.25, 0.25]), torch.tensor([True, False, False, False]), 2)
        {'entropy': 1.0, 'top_mass': 0.5, 'instance_auc': 0.5}
    """
    weights = attention.detach().double()
    found = {}
    if len(weights) > 1:
        found["entropy"] = (-torch.special.xlogy(weights, weights).sum() / math.log(len(weights))).item()
    found["top_mass"] = weights.topk(min(top, len(weights))).values.sum().item()
    if relevant is not None and 0 < int(relevant.sum()) < len(relevant):
        found["instance_auc"] = binary_auroc(weights, relevant.long().to(weights.device)).item()
    return found
