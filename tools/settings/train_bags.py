"""Settings of `regard train` for heads on bags of features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["AemSettings", "BagSettings", "HeadSettings"]


@dataclass(frozen=True, kw_only=True)
class AemSettings:
    """Attention entropy maximisation, for a head with attention.

    Attributes:
        weight: lambda, at least 0.
        schedule: constant, or cosine, from `weight` down to 0.
        normalise: divide by ln of the number of instances.
    """

    weight: float = 0.1
    schedule: Literal["constant", "cosine"] = "constant"
    normalise: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """One of the heads that are trained side by side.

    Attributes:
        name: mean, max, abmil, abmil_mha, clam_sb, clam_mb, dsmil, transmil, dtfd, ilra, ibmil, acmil, acmil_mha,
            mhim or ins; or package.module:Class for a head of your own.
        label: what it is called in tables and folders; null is its name, with +aem.
        options: the head's own options, e.g. width, branches, chunk.
        aem: the regulariser; null is without.
        after: of ibmil: label of an abmil of the same width in this list, whose vectors of the training bags give the
            confounders.
    """

    name: str
    label: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    aem: AemSettings | None = None
    after: str | None = None


@dataclass(frozen=True, kw_only=True)
class BagSettings:
    """Bags of features, the heads that learn from them, and how they are compared.

    Attributes:
        heads: what is trained, on the same folds with the same seeds; more may be added to a finished run.
        table: CSV of the slides (slide_id, case_id, label; for survival time and event); embedded data has its own.
        label: column of the labels.
        classes: names of the classes in their order; null is as the data has them.
        task: classification; or survival, by the hazards of intervals of time.
        intervals: of survival: how many, cut by quantiles of the event times of the training part.
        folds: of cross-validation, grouped by patient; or a folder of splits_0.csv ... as CLAM writes them.
        repeats: of the cross-validation, with other folds.
        val_share: share of the training patients held out to choose the epoch and to stop early, 0-1; with 0 the last
            epoch counts.
        seeds: of the training; every head is trained with each. Rendered data are another world for each.
        reference: label of the head that the others are tested against; null is the first.
        score: what chooses the epoch with best_by score, and what is tested; null is auc, or concordance for survival.
        early_stop_from: earliest epoch, counted from 1, after which early_stop may end the training.
        class_weights: balanced weighs each class's loss by one over its share of the training bags.
        weighted_sampling: draw training bags with replacement, all classes alike often.
        instances: instances of a bag drawn for a step of training: how many, or below 1 the share; null is all.
        standardise: take the mean of the training instances away from the features, and divide by their deviation.
        chunk: instances that a head projects at a time, for bags that do not fit; null is all.
        encoder: what made the features, noted with the trained heads.
        workers: processes that read bags, for each device; 0 is best for small bags.
        resamples: of the bootstrap of the intervals.
    """

    heads: list[HeadSettings]
    table: str | None = None
    label: str = "label"
    classes: list[str] | None = None
    task: Literal["classification", "survival"] = "classification"
    intervals: int = 4
    folds: int | str = 5
    repeats: int = 1
    val_share: float = 0.1
    seeds: list[int] = field(default_factory=lambda: [0])
    reference: str | None = None
    score: Literal["auc", "balanced_accuracy", "macro_f1", "accuracy", "concordance"] | None = None
    early_stop_from: int = 1
    class_weights: Literal["none", "balanced"] = "none"
    weighted_sampling: bool = False
    instances: float | None = None
    standardise: bool = True
    chunk: int | None = None
    encoder: str | None = None
    workers: int = 0
    resamples: int = 1000
