"""Settings of `regard train mil`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from .resuming import EXTEND, FREE
from .train import Share, TrainerSettings
from .types import BagSource, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

__all__ = ["AemSettings", "HeadSettings", "TrainMilSettings"]

Score = Literal["auc", "balanced_accuracy", "macro_f1", "accuracy", "concordance"]


@dataclass(frozen=True, kw_only=True)
class AemSettings:
    """Attention entropy maximisation, for a head with attention.

    Attributes:
        weight: lambda, at least 0.
        schedule: constant, or cosine, from `weight` down to 0.
        normalise: divide by ln of the number of instances.
    """

    weight: NonNegativeFloat = 0.1
    schedule: Literal["constant", "cosine"] = "constant"
    normalise: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """One of the heads that are trained side by side.

    Attributes:
        name: mean, max, abmil, abmil_mha, clam_sb, clam_mb, dsmil, transmil, dtfd, ilra, ibmil, acmil, acmil_mha,
            mhim or ins; or package.module:Class for your own head.
        label: its name in tables and folders; null is its name, with +aem.
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

    @property
    def shown_name(self) -> str:
        """Its name in tables and folders."""
        return self.label or self.name.replace(":", ".") + ("+aem" if self.aem else "")


@dataclass(frozen=True, kw_only=True)
class TrainMilSettings(TrainerSettings):
    """Train multiple-instance heads side by side on bags of features, on the same folds, and compare them.

    Attributes:
        data: ucsb, musk1, musk2, elephant; mil_shortcut, mil_noise, mil_rare (rendered); or a folder of features.
        out: folder of results; the same command again resumes where it was stopped.
        heads: what is trained, on the same folds with the same seeds; more may be added to a finished run.
        table: CSV of the slides (slide_id, case_id, label; for survival time and event); embedded data has its own.
        label: column of the labels.
        classes: names of the classes in their order; null is as the data has them.
        task: classification; or survival, by the hazards of intervals of time.
        intervals: of survival: how many, cut by quantiles of the event times of the training part.
        folds: of the cross-validation, grouped by patient; or a folder of splits_0.csv ... as CLAM writes them.
        repeats: of the cross-validation, with other folds.
        val_share: share of the training patients held out to choose the epoch and to stop early, 0-1; with 0 the last
            epoch counts.
        seeds: of the training; every head is trained with each. Each has its own rendered data.
        seed: seed of the folds and of the bootstrap.
        reference: label of the head that the others are tested against; null is the first.
        score: what chooses the epoch with best_by score, and what is tested; null is auc, or concordance for survival.
        best_by: what chooses the best epoch, and what early_stop watches.
        early_stop_from: earliest epoch, counted from 1, after which early_stop may end the training.
        class_weights: balanced weighs each class's loss by one over its share of the training bags.
        weighted_sampling: draw training bags with replacement, all classes equally often.
        instances: instances of a bag drawn for a step of training: how many, or below 1 the share; null is all.
        standardise: subtract the mean of the training instances from the features, and divide by their std.
        chunk: instances that a head projects at a time, for bags that do not fit; null is all.
        encoder: what made the features, noted with the trained heads.
        workers: processes that read bags, for each device; 0 is best for small bags.
        resamples: of the bootstrap of the intervals.
    """

    data: BagSource = "ucsb"
    out: str = field(default="runs/train", metadata=FREE)
    heads: list[HeadSettings] = field(default_factory=lambda: [HeadSettings(name="abmil")], metadata=EXTEND)
    table: str | None = None
    label: str = "label"
    classes: list[str] | None = None
    task: Literal["classification", "survival"] = "classification"
    intervals: PositiveInt = 4
    folds: int | str = 5
    repeats: PositiveInt = 1
    val_share: Share = 0.1
    seeds: list[NonNegativeInt] = field(default_factory=lambda: [0], metadata=EXTEND)
    reference: str | None = field(default=None, metadata=EXTEND)
    score: Score | None = None
    best_by: Literal["score", "loss"] = "score"
    early_stop_from: PositiveInt = 1
    class_weights: Literal["none", "balanced"] = "none"
    weighted_sampling: bool = False
    instances: PositiveFloat | None = None
    standardise: bool = True
    chunk: PositiveInt | None = None
    encoder: str | None = None
    workers: NonNegativeInt = field(default=0, metadata=FREE)
    resamples: PositiveInt = field(default=1000, metadata=EXTEND)

    def check_together(self) -> None:
        """Refuse settings that do not go together."""
        if not self.heads:
            raise ValueError("--heads is empty; give at least one, e.g. [{name: abmil}]")
        labels = [head.shown_name for head in self.heads]
        for label in labels:
            if not re.fullmatch(r"[\w.+=-]+", label) or label.startswith("."):
                raise ValueError(f"a head has the label {label!r}; give letters, digits and . _ + = -")
            if labels.count(label) > 1:
                raise ValueError(f"two heads have the label {label!r}; give one of them another label")
        if self.reference not in (None, *labels):
            raise ValueError(f"--reference is {self.reference!r}, but the heads are {', '.join(labels)}")
        if self.score is not None and (self.score == "concordance") != (self.task == "survival"):
            raise ValueError(f"--score {self.score} is not available for {self.task}")
        if self.task == "survival" and (self.class_weights != "none" or self.weighted_sampling):
            raise ValueError("survival has no classes: omit --class_weights and --weighted_sampling")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds is {self.seeds}; give one or more different numbers")
        for head, label in zip(self.heads, labels, strict=True):
            self._check_confounders(head, label, labels)

    def _check_confounders(self, head: HeadSettings, label: str, labels: list[str]) -> None:
        """IBMIL needs a first stage: it must stand before it and have its width."""
        if head.name != "ibmil":
            if head.after is not None:
                raise ValueError(f"the head {label} has after: {head.after}, which is for ibmil only; leave it out")
            return
        if head.after not in labels[: labels.index(label)] or self.heads[labels.index(head.after)].name != "abmil":
            raise ValueError(
                f"the head {label} needs confounders of a first stage: give it after: LABEL, an abmil that stands "
                f"before it in the list, not {head.after!r}"
            )
        widths = [one.options.get("width", 512) for one in (head, self.heads[labels.index(head.after)])]
        if widths[0] != widths[1]:
            raise ValueError(f"the head {label} is {widths[0]} wide, but {head.after} {widths[1]}; give both one width")
