"""Scores of weighted bags, for bootstrap intervals over patients (`regard.paired_statistics.bootstrap_means`)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from .survival import comparable_pairs, risk

__all__ = ["class_scores", "survival_scores"]

#: Bins of the calibration error.
BINS = 15

Scores = dict[str, Float[np.ndarray, " draws"]]


def class_scores(
    probabilities: Float[np.ndarray, "bags classes"],
    labels: Int[np.ndarray, " bags"],
    weights: Float[np.ndarray, "draws bags"],
) -> Scores:
    """The metrics of `ClassificationMetrics` for weighted bags; nan where a draw does not define one.

    Args:
        probabilities: probabilities of the classes.
        labels: the true ones.
        weights: how often each bag counts, a row for each draw.

    Example:
        >>> class_scores(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), np.ones((1, 2)))["auc"]
        array([1.])
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    cells = np.eye(classes * classes)[labels * classes + predicted]
    counts = (weights @ cells).reshape(-1, classes, classes)  # draws true predicted
    right = np.diagonal(counts, axis1=1, axis2=2)
    true, named, all_bags = counts.sum(axis=2), counts.sum(axis=1), counts.sum(axis=(1, 2))
    present, scored = true > 0, true + named > 0
    recalls = np.divide(right, true, out=np.zeros_like(right), where=present)
    f1 = np.divide(2 * right, true + named, out=np.zeros_like(right), where=scored)
    areas = np.stack([_area(probabilities[:, index], labels == index, weights) for index in range(classes)], axis=1)
    known = np.isfinite(areas).sum(axis=1)
    confidence = probabilities.max(axis=1)
    bins = np.eye(BINS)[np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)]
    gaps = np.abs(weights @ (bins * (confidence - (predicted == labels))[:, None])).sum(axis=1)
    log_loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auc": np.where(known > 0, np.nansum(areas, axis=1) / known, np.nan),
            "balanced_accuracy": recalls.sum(axis=1) / present.sum(axis=1),
            "macro_f1": f1.sum(axis=1) / scored.sum(axis=1),
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
