"""Contributions of answers to yes/no questions, and accuracy, precision, recall and F1 from their sums."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri

from .contract import Counted
from .yes_no import Verdict

__all__ = ["count_yes_no", "yes_no_metrics"]


def count_yes_no(parsed: Verdict, label: str, *, positive: str = "yes", dropped: bool = False) -> Counted:
    """Contribution of one answer to a yes/no question.

    Args:
        parsed: result of the parser.
        label: yes or no.
        positive: the positive class of precision and recall.
        dropped: exclude unknown answers from recall, as lmms-eval does; otherwise they count as misses.
    """
    hit, wanted = parsed == positive, label == positive
    return Counted(
        numbers={
            "answers": 1.0,
            "right": float(parsed == label),
            "yes": float(parsed == "yes"),
            "unknown": float(parsed == "unknown"),
            "positives": float(wanted),
            "true_positives": float(hit and wanted),
            "false_positives": float(hit and not wanted),
            "false_negatives": float(wanted and not hit and not (dropped and parsed == "unknown")),
        },
        correct=parsed == label,
        parsed=parsed,
    )


def yes_no_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics from sums of `count_yes_no`; nan if undefined.

    `d_prime` is the separation of yes and no questions in units of the std of the model's decision variable; it is
    invariant to a bias towards yes or no. Shares of 0 and 1 are corrected by half an answer (Hautus 1995,
    doi:10.3758/BF03203619).
    """
    sums = {name: np.asarray(value, float) for name, value in sums.items()}
    answers, hits = sums["answers"], sums["true_positives"]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = hits / (hits + sums["false_positives"])
        recall = hits / (hits + sums["false_negatives"])
        metrics = {
            "accuracy": sums["right"] / answers,
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "d_prime": _d_prime(sums),
            "yes_percent": 100 * sums["yes"] / answers,
            "unknown": sums["unknown"],
        }
    return {name: np.asarray(value) for name, value in metrics.items()}


def _d_prime(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    positives, negatives = sums["positives"], sums["answers"] - sums["positives"]
    hits = (sums["true_positives"] + 0.5) / (positives + 1)
    alarms = (sums["false_positives"] + 0.5) / (negatives + 1)
    return np.where((positives > 0) & (negatives > 0), ndtri(hits) - ndtri(alarms), np.nan)
