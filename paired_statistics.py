"""Paired statistics: bootstrap intervals over clusters, and tests between models that saw the same samples.

Samples of one cluster (questions about one image, slides of one patient) are correlated, so clusters are resampled and
not samples (Davison and Hinkley 1997, section 3.8). All models are scored on the same resamples, so that differences
are paired. `bootstrap` is for metrics of sums over samples; `bootstrap_means` for means over runs of any weighted
score.

Sources: Efron and Tibshirani 1993, chapter 13 (percentile intervals); McNemar 1947, doi:10.1007/BF02295996;
Holm 1979, "A simple sequentially rejective multiple test procedure"; Nadeau and Bengio 2003, "Inference for the
Generalization Error", doi:10.1023/A:1024068626366 (the corrected resampled t-test).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

__all__ = [
    "LEVEL",
    "Bootstrap",
    "Estimate",
    "McNemar",
    "PairedTest",
    "ScoredRun",
    "bootstrap",
    "bootstrap_means",
    "cluster_sums",
    "compare",
    "holm",
    "mcnemar",
    "mcnemar_from_counts",
    "paired_test",
    "resample",
]

#: Coverage of intervals.
LEVEL = 0.95
#: Number of weights held at a time, 32 MB in float64.
CHUNK = 1 << 22
#: Relative difference below which values count as equal.
ROUNDING = 1e-12

Metrics = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class McNemar(NamedTuple):
    """McNemar's exact test.

    Attributes:
        gained: samples that only the arm has correct.
        lost: samples that only the baseline has correct.
        p: two-sided p-value; 1 without disagreement.
    """

    gained: int
    lost: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric, or the difference of one between two arms.

    Attributes:
        value: on all samples; nan if undefined.
        low: lower end of the 95 % interval; nan with fewer than two clusters or if undefined in all resamples.
        high: upper end.
        undefined: fraction of resamples (0-1) in which it is undefined; the interval is over the others.
        p: two-sided p-value of a difference, see `bootstrap`; nan otherwise.
    """

    value: float
    low: float
    high: float
    undefined: float
    p: float = float("nan")


class Bootstrap(NamedTuple):
    """Result of `bootstrap`.

    Attributes:
        values: arm -> metric -> estimate.
        differences: arm -> metric -> estimate of arm minus baseline; all arms but the baseline.
    """

    values: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]


def mcnemar(baseline: Bool[np.ndarray, " questions"], arm: Bool[np.ndarray, " questions"]) -> McNemar:
    """Compare two arms by the samples on which only one of them is correct.

    The test assumes independent samples. With several samples per image p tends to be too small; prefer the p-value of
    `bootstrap`.

    Args:
        baseline: whether it is correct.
        arm: whether it is correct, for the same samples in the same order.

    Example:
        >>> mcnemar(np.array([True, False, False, False]), np.array([True, True, True, True]))
        McNemar(gained=3, lost=0, p=0.25)
    """
    return mcnemar_from_counts(int((arm & ~baseline).sum()), int((baseline & ~arm).sum()))


def mcnemar_from_counts(gained: int, lost: int) -> McNemar:
    """`mcnemar` from its two counts.

    Example:
        >>> mcnemar_from_counts(3, 0).p
        0.25
    """
    p = min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
    return McNemar(gained, lost, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment of p-values, which controls the probability of any false positive among them.

    Args:
        p_values: 0-1; nan stays nan and does not count.

    Raises:
        ValueError: a p-value is not within 0-1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    wrong = [p for p in p_values if not (np.isnan(p) or 0 <= p <= 1)]
    if wrong:
        raise ValueError(f"p-values must be between 0 and 1; got {wrong[0]}")
    order = sorted((index for index, p in enumerate(p_values) if not np.isnan(p)), key=lambda index: p_values[index])
    adjusted, highest = [float("nan")] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(p_values[index])))
        adjusted[index] = highest
    return adjusted


def cluster_sums(
    members: Int[np.ndarray, " samples"], numbers: Float[np.ndarray, "samples columns"]
) -> Float[np.ndarray, "clusters columns"]:
    """Sum the numbers of each cluster.

    Args:
        members: index of each sample's cluster, from 0 without gaps.
        numbers: contributions of each sample.
    """
    return np.stack([np.bincount(members, weights=column) for column in numbers.T], axis=1)


def bootstrap(
    clusters: Sequence[Hashable],
    numbers: Mapping[str, Mapping[str, np.ndarray]],
    metrics: Metrics,
    *,
    baseline: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    """Metrics of every arm and their differences to the baseline, with percentile intervals over clusters.

    A resample draws as many clusters as there are, with replacement; all arms are scored on the same resamples.
    Resamples in which a metric is undefined are skipped for that metric, and their fraction is reported. Percentile
    intervals are too narrow for few clusters (below about 30), and have zero width where all samples are equal.

    The p-value of a difference inverts the percentile interval: up to a resample or two it is below 0.05 where the 95 %
    interval excludes 0. With `below` resamples with a difference of at most 0, and `above` with at least 0, it is
    2 (1 + min(below, above)) / (1 + resamples), at most 1.

    Args:
        clusters: the cluster of each sample, such as the name of its image.
        numbers: arm -> name -> contribution of each sample; the same names for every arm.
        metrics: maps sums by name to metrics, elementwise, nan if undefined; see `Benchmark.metrics`.
        baseline: the arm that the others are compared with; `None` for no comparison.
        resamples: at least 1.
        seed: of the resamples, which otherwise depend only on the number of clusters.

    Raises:
        ValueError: no samples, no resamples, arms with different names or numbers of samples, or a baseline that is
            not one of the arms.

    Example:
        >>> right = {"base": {"right": np.array([1, 0, 1, 0])}, "fix": {"right": np.array([1, 1, 1, 0])}}
        >>> found = bootstrap(["a", "a", "b", "b"], right, lambda sums: {"right": sums["right"]}, baseline="base")
        >>> found.values["fix"]["right"].value, found.differences["fix"]["right"].value
        (3.0, 1.0)
    """
    names = _checked(clusters, numbers, baseline, resamples)
    index: dict[Hashable, int] = {}
    members = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
    sums = {
        arm: cluster_sums(members, np.stack([np.asarray(own[name], dtype=float) for name in names], axis=1))
        for arm, own in numbers.items()
    }
    table = np.concatenate(list(sums.values()), axis=1)
    drawn = np.split(resample(table, resamples, seed), len(sums), axis=1)
    return compare(sums, dict(zip(sums, drawn, strict=True)), names, metrics, baseline)


def resample(
    sums: Float[np.ndarray, "clusters columns"], resamples: int, seed: int
) -> Float[np.ndarray, "resamples columns"]:
    """Sums of resamples of clusters; nan for fewer than two clusters.

    Args:
        sums: of each cluster.
        resamples: at least 1.
        seed: of the resamples, which otherwise depend only on the number of clusters.
    """
    size = len(sums)
    if size < 2:
        return np.full((1, sums.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // size)
    drawn = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        picks = generator.integers(size, size=(count, size), dtype=np.int32).astype(np.int64)
        picks += size * np.arange(count)[:, None]
        # The number of times that each cluster is drawn.
        weights = np.bincount(picks.ravel(), minlength=count * size).reshape(count, size)
        drawn.append(weights.astype(float) @ sums)
    return np.concatenate(drawn)


def compare(
    sums: Mapping[str, Float[np.ndarray, "clusters columns"]],
    drawn: Mapping[str, Float[np.ndarray, "resamples columns"]],
    names: Sequence[str],
    metrics: Metrics,
    baseline: str | None = None,
) -> Bootstrap:
    """Metrics of every arm and their differences to the baseline, from given resamples.

    Args:
        sums: arm -> sums of each cluster.
        drawn: arm -> sums of each resample, the same resamples for every arm (`resample` of all columns at once).
        names: of the columns.
        metrics: as in `bootstrap`.
        baseline: as in `bootstrap`.
    """
    scored = {
        arm: (_score(metrics, names, own.sum(axis=0, keepdims=True)), _score(metrics, names, drawn[arm]))
        for arm, own in sums.items()
    }
    values = {
        arm: {name: _estimate(whole[name][0], draws[name]) for name in whole} for arm, (whole, draws) in scored.items()
    }
    differences: dict[str, dict[str, Estimate]] = {}
    for arm, (whole, draws) in scored.items():
        if baseline is not None and arm != baseline:
            base, base_draws = scored[baseline]
            differences[arm] = {
                name: _estimate(_minus(whole[name], base[name])[0], _minus(draws[name], base_draws[name]), test=True)
                for name in whole
            }
    return Bootstrap(values, differences)


def _checked(
    clusters: Sequence[Hashable], numbers: Mapping[str, Mapping[str, np.ndarray]], baseline: str | None, resamples: int
) -> list[str]:
    """The names that all arms share."""
    if not len(clusters) or not numbers:
        raise ValueError("there is nothing to score; give samples and at least one arm")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    if baseline is not None and baseline not in numbers:
        raise ValueError(f"the baseline {baseline!r} is not among the arms: {', '.join(numbers)}")
    first, *_ = numbers.values()
    for arm, own in numbers.items():
        if set(own) != set(first):
            raise ValueError(f"arm {arm!r} has the numbers {sorted(own)}, another one {sorted(first)}")
        wrong = [name for name in own if np.shape(own[name]) != (len(clusters),)]
        if wrong:
            raise ValueError(
                f"arm {arm!r} has {wrong[0]!r} of shape {np.shape(own[wrong[0]])} for {len(clusters)} samples; "
                "give one number per sample"
            )
    return list(first)


def _score(metrics: Metrics, names: Sequence[str], sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of each row of sums; nan where one is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = metrics({name: np.ascontiguousarray(sums[:, index]) for index, name in enumerate(names)})
    arrays = {name: np.broadcast_to(np.asarray(value, dtype=float), len(sums)) for name, value in found.items()}
    return {name: np.where(np.isfinite(array), array, np.nan) for name, array in arrays.items()}


def _minus(arm: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Differences; those from rounding are 0, since equal columns of a matrix product can differ in their last bits."""
    difference = arm - baseline
    return np.where(np.abs(difference) <= ROUNDING * np.maximum(np.abs(arm), np.abs(baseline)), 0.0, difference)


def _estimate(value: float, draws: np.ndarray, test: bool = False) -> Estimate:
    defined = draws[~np.isnan(draws)]
    nan = float("nan")
    undefined = 1 - len(defined) / len(draws)
    if np.isnan(value) or not len(defined):
        return Estimate(value=float(value), low=nan, high=nan, undefined=undefined)
    low, high = _percentiles(defined)
    fewer = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    p = min(1.0, 2 * (1 + fewer) / (1 + len(defined))) if test else nan
    return Estimate(value=float(value), low=low, high=high, undefined=undefined, p=p)


@dataclass(frozen=True)
class ScoredRun:
    """Samples on which one trained model was tested.

    Attributes:
        clusters: of each sample, such as its patient.
        score: maps weights of the samples, one row per resample, to metrics.
    """

    clusters: Sequence[Hashable]
    score: Callable[[Float[np.ndarray, "resamples samples"]], dict[str, Float[np.ndarray, " resamples"]]]


def bootstrap_means(
    models: Mapping[str, Sequence[ScoredRun]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % intervals of each model's mean score over its folds and seeds.

    A resample draws as many clusters as there are, with replacement; a cluster has the same weight wherever it is
    tested, in all folds, seeds and models. Each run is scored on its part of the resample, and the mean is over the
    runs whose score is defined. The interval is over test clusters: models are not trained again.

    Args:
        models: model -> its runs.
        resamples: at least 1.
        seed: of the resamples.

    Returns:
        model -> metric -> lower and upper end; nan for fewer than two clusters.

    Example:
        >>> run = ScoredRun("abcd", lambda weights: {"mean": weights @ np.ones(4) / weights.sum(axis=1)})
        >>> bootstrap_means({"abmil": [run]})["abmil"]["mean"]
        (1.0, 1.0)
    """
    clusters = {cluster: None for runs in models.values() for run in runs for cluster in run.clusters}
    index = {cluster: number for number, cluster in enumerate(clusters)}
    count = len(index)
    if count < 2:
        resamples = 0
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / max(count, 1)), size=resamples)
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for model, runs in models.items():
        scores = [run.score(weights[:, [index[cluster] for cluster in run.clusters]].astype(float)) for run in runs]
        intervals[model] = {name: _interval_of_mean(np.stack([score[name] for score in scores])) for name in scores[0]}
    return intervals


class PairedTest(NamedTuple):
    """Difference of a score between two models.

    Attributes:
        difference: mean over the folds.
        better: number of folds in which the model is better than the other.
        worse: number of folds in which it is worse.
        p: two-sided p-value; nan for fewer than two folds, or if all differences are equal.
    """

    difference: float
    better: int
    worse: int
    p: float


def paired_test(
    own: Float[np.ndarray, " folds"], other: Float[np.ndarray, " folds"], *, test_to_train: float
) -> PairedTest:
    """The corrected resampled t-test of Nadeau and Bengio between two models on the same folds.

    Folds of one data set share most of their training samples, so that their differences vary less than those of new
    data would; for J folds the variance of the mean is s^2 (1/J + test_to_train) instead of s^2 / J.

    Args:
        own: score of each fold, averaged over seeds.
        other: likewise.
        test_to_train: number of test samples over training samples; 0 if folds share no data.

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
    return PairedTest(mean, int((differences > 0).sum()), int((differences < 0).sum()), p)


def _interval_of_mean(scores: Float[np.ndarray, "runs resamples"]) -> tuple[float, float]:
    known = np.isfinite(scores)
    defined = known.any(axis=0)
    if not defined.any():
        return math.nan, math.nan
    return _percentiles(np.where(known, scores, 0).sum(axis=0)[defined] / known.sum(axis=0)[defined])


def _percentiles(values: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
