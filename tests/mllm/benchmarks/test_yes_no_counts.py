"""d' against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from regard.mllm.benchmarks.yes_no import Verdict
from regard.mllm.benchmarks.yes_no_counts import count_yes_no, yes_no_metrics


def metrics(parsed: list[Verdict], labels: list[str]) -> dict[str, float]:
    counted = [count_yes_no(one, label).numbers for one, label in zip(parsed, labels, strict=True)]
    sums = {name: np.array(sum(one[name] for one in counted)) for name in counted[0]}
    return {name: float(value) for name, value in yes_no_metrics(sums).items()}


def test_d_prime_is_the_distance_of_two_normal_distributions() -> None:
    draws = np.random.default_rng(0).normal(size=20_000)
    labels = ["yes", "no"] * 10_000
    evidence = draws + 1.3 * np.array([label == "yes" for label in labels])
    for threshold in (-0.5, 0.3, 1.5):  # a bias towards one answer does not move it
        found = metrics(["yes" if one > threshold else "no" for one in evidence], labels)
        assert found["d_prime"] == pytest.approx(1.3, abs=0.06)


def test_shares_of_all_and_nothing_are_brought_in_by_half_an_answer() -> None:
    found = metrics(["yes", "yes", "no"], ["yes", "yes", "no"])["d_prime"]
    assert found == pytest.approx(stats.norm.ppf(2.5 / 3) - stats.norm.ppf(0.5 / 2))


def test_one_kind_of_question_has_no_d_prime() -> None:
    assert np.isnan(metrics(["yes", "no"], ["yes", "yes"])["d_prime"])
