"""Comparison of heads: weighted metrics are metrics, patients are drawn whole, tests are Nadeau and Bengio's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from regard.heads.comparison import class_scores, survival_scores
from regard.heads.metrics import ClassificationMetrics, SurvivalMetrics
from regard.paired_statistics import ScoredRun, bootstrap_means, paired_test


@pytest.fixture
def logits() -> torch.Tensor:
    drawn = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return (drawn * 2).round() / 2  # with ties


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))


def test_bags_of_weight_one_give_the_metrics_of_torchmetrics(logits: torch.Tensor, labels: torch.Tensor) -> None:
    metrics = ClassificationMetrics(3)
    metrics.update(logits, labels)
    own = class_scores(logits.softmax(dim=1).double().numpy(), labels.numpy(), np.ones((1, 40)))
    for name, value in metrics.compute().items():
        assert own[name].item() == pytest.approx(value.item(), abs=1e-6), name


def test_a_bag_of_weight_two_is_two_bags_and_of_weight_zero_none(logits: torch.Tensor, labels: torch.Tensor) -> None:
    probabilities = logits.softmax(dim=1).double().numpy()
    weights = np.random.default_rng(0).integers(0, 3, 40).astype(float)
    indices = np.repeat(np.arange(40), weights.astype(int))
    weighted = class_scores(probabilities, labels.numpy(), weights[None])
    repeated = class_scores(probabilities[indices], labels.numpy()[indices], np.ones((1, len(indices))))
    for name, value in repeated.items():
        assert weighted[name].item() == pytest.approx(value.item(), abs=1e-12), name


def test_weighted_survival_is_that_of_repeated_bags(logits: torch.Tensor) -> None:
    draw = np.random.default_rng(0)
    times, events = draw.integers(1, 9, 40).astype(np.float32), draw.random(40) < 0.6
    metrics = SurvivalMetrics([3.0, 6.0])
    metrics.update(logits, torch.from_numpy(times), torch.from_numpy(events))
    own = survival_scores(logits.numpy(), times, events, np.ones(40), np.ones((1, 40)))
    assert own["concordance"].item() == pytest.approx(metrics.compute()["concordance"].item(), abs=1e-6)
    weights = draw.integers(0, 3, 40).astype(float)
    indices = np.repeat(np.arange(40), weights.astype(int))
    weighted = survival_scores(logits.numpy(), times, events, np.ones(40), weights[None])["concordance"]
    repeated = survival_scores(
        logits.numpy()[indices], times[indices], events[indices], np.ones(len(indices)), np.ones((1, len(indices)))
    )["concordance"]
    assert weighted.item() == pytest.approx(repeated.item(), abs=1e-12)


def right_or_wrong(right: list[bool], patients: str) -> ScoredRun:
    probabilities = np.array([[0.1, 0.9] if yes else [0.9, 0.1] for yes in right])
    return ScoredRun(patients, lambda weights: class_scores(probabilities, np.ones(len(right), dtype=int), weights))


def test_a_patient_in_several_folds_is_drawn_once_for_all() -> None:
    one = right_or_wrong([True, False, True, False], "abcd")
    once = bootstrap_means({"head": [one]}, resamples=500)["head"]["accuracy"]
    thrice = bootstrap_means({"head": [one, one, one]}, resamples=500)["head"]["accuracy"]
    assert once == thrice  # repeats of the same patients add no certainty
    apart = [right_or_wrong([True, False, True, False], patients) for patients in ("abcd", "efgh", "ijkl")]
    low, high = bootstrap_means({"head": apart}, resamples=500)["head"]["accuracy"]
    assert high - low < once[1] - once[0]


def test_slides_of_a_patient_go_together() -> None:
    apart = bootstrap_means({"head": [right_or_wrong([True] * 10 + [False] * 10, "abcdefghijklmnopqrst")]})
    together = bootstrap_means({"head": [right_or_wrong([True] * 10 + [False] * 10, "a" * 5 + "b" * 5 + "c" * 10)]})
    widths = [np.ptp(found["head"]["accuracy"]) for found in (apart, together)]
    assert widths[1] > widths[0]


def test_one_patient_has_no_interval() -> None:
    assert np.isnan(bootstrap_means({"head": [right_or_wrong([True, False], "aa")]})["head"]["accuracy"]).all()


def test_the_paired_test_is_the_t_test_and_shared_training_bags_make_it_careful() -> None:
    own, other = np.array([0.9, 0.8, 0.85, 0.95]), np.array([0.7, 0.75, 0.8, 0.85])
    plain = paired_test(own, other, test_to_train=0.0)
    assert plain.p == pytest.approx(stats.ttest_rel(own, other).pvalue)
    assert (plain.better, plain.worse) == (4, 0)
    corrected = paired_test(own, other, test_to_train=0.25)
    differences = own - other
    t = differences.mean() / np.sqrt(differences.var(ddof=1) * (1 / 4 + 0.25))
    assert corrected.p == pytest.approx(2 * stats.t.sf(t, 3))
    assert corrected.p > plain.p


def test_no_difference_is_no_finding_and_one_fold_no_test() -> None:
    same = np.array([0.5, 0.6])
    assert paired_test(same, same, test_to_train=0.2).p == 1.0
    assert np.isnan(paired_test(same[:1], same[1:], test_to_train=0.2).p)
    assert np.isnan(paired_test(same + 0.125, same, test_to_train=0.2).p)
