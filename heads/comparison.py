"""Heads that were tested on the same folds, compared: intervals over patients, and tests paired by fold.

Sources: Davison and Hinkley 1997, section 3.8 (bootstrap over clusters); Nadeau and Bengio 2003, "Inference for the
Generalization Error", doi:10.1023/A:1024068626366 (the corrected resampled t-test).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import special

from .survival import comparable_pairs, risk

__all__ = ["PairedTest", "ScoredBags", "bootstrap_means", "class_scores", "paired_test", "survival_scores"]

#: What intervals cover.
LEVEL = 0.95
#: Bins of the calibration error.
BINS = 15

Scores = dict[str, Float[np.ndarray, " draws"]]


@dataclass(frozen=True)
class ScoredBags:
    """Bags that one trained head was tested on.

    Attributes:
        patients: of each bag.
        score: from weights of the bags, a row for each draw, to metrics.
    """

    patients: Sequence[Hashable]
    score: Callable[[Float[np.ndarray, "draws bags"]], Scores]


class PairedTest(NamedTuple):
    """Difference of a score between two heads.

    Attributes:
        difference: mean over the folds.
        better: folds in which the head is better than the other.
        worse: folds in which it is worse.
        p: two-sided; nan for fewer than two folds, or where all folds differ alike.
    """

    difference: float
    better: int
    worse: int
    p: float


def class_scores(
    chances: Float[np.ndarray, "bags classes"],
    labels: Int[np.ndarray, " bags"],
    weights: Float[np.ndarray, "draws bags"],
) -> Scores:
    """The metrics of `ClassificationMetrics` for weighted bags; nan where a draw does not define one.

    Args:
        chances: probabilities of the classes.
        labels: the true ones.
        weights: how often each bag counts, a row for each draw.

    Example:
        >>> class_scores(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), np.ones((1, 2)))["auc"]
        array([1.])
    """
    classes = chances.shape[1]
    told = chances.argmax(axis=1)
    cells = np.eye(classes * classes)[labels * classes + told]
    counts = (weights @ cells).reshape(-1, classes, classes)  # draws true told
    right = np.diagonal(counts, axis1=1, axis2=2)
    true, said, all_bags = counts.sum(axis=2), counts.sum(axis=1), counts.sum(axis=(1, 2))
    there, named = true > 0, true + said > 0
    recalls = np.divide(right, true, out=np.zeros_like(right), where=there)
    f1 = np.divide(2 * right, true + said, out=np.zeros_like(right), where=named)
    areas = np.stack([_area(chances[:, place], labels == place, weights) for place in range(classes)], axis=1)
    known = np.isfinite(areas).sum(axis=1)
    sure = chances.max(axis=1)
    bins = np.eye(BINS)[np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)]
    gaps = np.abs(weights @ (bins * (sure - (told == labels))[:, None])).sum(axis=1)
    log_loss = -np.log(np.maximum(chances[np.arange(len(labels)), labels], np.finfo(np.float32).tiny))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auc": np.where(known > 0, np.nansum(areas, axis=1) / known, np.nan),
            "balanced_accuracy": recalls.sum(axis=1) / there.sum(axis=1),
            "macro_f1": f1.sum(axis=1) / named.sum(axis=1),
            "accuracy": right.sum(axis=1) / all_bags,
            "calibration_error": gaps / all_bags,
            "loss": weights @ log_loss / all_bags,
        }


def survival_scores(
    logits: Float[np.ndarray, "bags intervals"],
    times: Float[np.ndarray, " bags"],
    events: Bool[np.ndarray, " bags"],
    losses: Float[np.ndarray, " bags"],
    weights: Float[np.ndarray, "draws bags"],
) -> Scores:
    """The metrics of `SurvivalMetrics` for weighted bags; nan where a draw has no pair to compare.

    Args:
        logits: of the hazards.
        times: of the event, or of the end of observation.
        events: whether it happened.
        losses: of each bag.
        weights: how often each bag counts, a row for each draw.

    Example:
        >>> logits, times, losses = np.array([[2.0], [0.0]]), np.array([1.0, 2.0]), np.ones(2)
        >>> survival_scores(logits, times, np.array([True, False]), losses, np.ones((1, 2)))
        {'concordance': array([1.]), 'loss': array([1.])}
    """
    risks = risk(torch.from_numpy(logits)).double().numpy()
    compared = comparable_pairs(torch.from_numpy(times), torch.from_numpy(events)).double().numpy()
    higher = (risks[:, None] > risks) + 0.5 * (risks[:, None] == risks)
    held, total = (((weights @ matrix) * weights).sum(axis=1) for matrix in (higher * compared, compared))
    with np.errstate(invalid="ignore"):
        loss = weights @ losses / weights.sum(axis=1)
    return {"concordance": np.divide(held, total, out=np.full_like(held, np.nan), where=total > 0), "loss": loss}


def bootstrap_means(
    heads: Mapping[str, Sequence[ScoredBags]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % intervals of each head's mean score over its folds and seeds.

    A draw takes as many patients as there are, with replacement; a patient counts alike wherever it is tested, in all
    folds, seeds and heads. Each fold is scored on its share of the draw, and the mean is taken over the folds that the
    draw defines. The interval is of the test patients: the heads are not trained anew.

    Args:
        heads: of each, what it was tested on.
        resamples: at least 1.
        seed: of the draws.

    Returns:
        head -> metric -> lower and upper end; nan for fewer than two patients.

    Example:
        >>> chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]])
        >>> labels = np.array([0, 1, 0, 1])
        >>> tested = ScoredBags("abcd", lambda weights: class_scores(chances, labels, weights))
        >>> bootstrap_means({"abmil": [tested]})["abmil"]["accuracy"]
        (1.0, 1.0)
    """
    patients = {patient: None for runs in heads.values() for run in runs for patient in run.patients}
    place = {patient: index for index, patient in enumerate(patients)}
    count = len(place)
    if count < 2:
        resamples = 0
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / max(count, 1)), size=resamples)
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for head, runs in heads.items():
        scores = [run.score(drawn[:, [place[patient] for patient in run.patients]].astype(float)) for run in runs]
        intervals[head] = {name: _interval(np.stack([score[name] for score in scores])) for name in scores[0]}
    return intervals


def paired_test(
    own: Float[np.ndarray, " folds"], other: Float[np.ndarray, " folds"], *, test_to_train: float
) -> PairedTest:
    """The corrected resampled t-test of Nadeau and Bengio between two heads on the same folds.

    Folds of one data set share most of their training bags, so that their differences vary less than those of fresh
    data would; the variance of the mean is s^2 (1/J + test_to_train) for J folds instead of s^2 / J.

    Args:
        own: score of each fold, a mean over the seeds.
        other: likewise.
        test_to_train: bags tested over bags trained on; 0 where every fold is a world of its own.

    Example:
        >>> found = paired_test(np.array([0.9, 0.8, 0.9]), np.array([0.7, 0.7, 0.9]), test_to_train=0.25)
        >>> found.better, found.worse, round(found.difference, 2), round(found.p, 2)
        (2, 0, 0.1, 0.32)
    """
    differences = own - other
    folds, mean = len(differences), float(differences.mean())
    variance = float(differences.var(ddof=1)) if folds > 1 else math.nan
    if folds > 1 and not differences.any():
        p = 1.0
    elif folds < 2 or variance <= 1e-24:
        p = math.nan
    else:
        t = abs(mean) / math.sqrt(variance * (1 / folds + test_to_train))
        p = 2 * float(special.stdtr(folds - 1, -t))
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return PairedTest(mean, better, worse, p)


def _area(
    scores: Float[np.ndarray, " bags"], wanted: Bool[np.ndarray, " bags"], weights: Float[np.ndarray, "draws bags"]
) -> Float[np.ndarray, " draws"]:
    """Area under the ROC curve, ties counting half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    found = np.add.reduceat((weights * wanted)[:, order], starts, axis=1)
    others = np.add.reduceat((weights * ~wanted)[:, order], starts, axis=1)
    below = others.cumsum(axis=1) - others / 2
    held, total = (found * below).sum(axis=1), found.sum(axis=1) * others.sum(axis=1)
    return np.divide(held, total, out=np.full_like(held, np.nan), where=total > 0)


def _interval(scores: Float[np.ndarray, "runs draws"]) -> tuple[float, float]:
    known = np.isfinite(scores)
    defined = known.any(axis=0)
    if not defined.any():
        return math.nan, math.nan
    means = np.where(known, scores, 0).sum(axis=0)[defined] / known.sum(axis=0)[defined]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
