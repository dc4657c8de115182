"""Paired statistics of answers to the same questions: intervals by image, and tests between arms.

Several questions about one image are right or wrong together, so images are drawn and not questions: the bootstrap over
clusters (Davison and Hinkley 1997, section 3.8). Every arm is scored on the same draws, so that differences are paired.

Sources: Efron and Tibshirani 1993, chapter 13 (percentile intervals); McNemar 1947, doi:10.1007/BF02295996;
Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

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
    "bootstrap",
    "cluster_sums",
    "compare",
    "discordant",
    "holm",
    "mcnemar",
    "resample",
]

#: What intervals cover.
LEVEL = 0.95
#: Weights of clusters that are held at once, 32 MB in float64.
CHUNK = 1 << 22
#: Values that differ by less than this part of themselves differ by rounding only.
ROUNDING = 1e-12

Metrics = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class McNemar(NamedTuple):
    """Exact test of McNemar.

    Attributes:
        gained: questions that only the arm gets right.
        lost: questions that only the baseline gets right.
        p: two-sided, of equal chances for both; 1 where they never disagree.
    """

    gained: int
    lost: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric, or the difference of one between two arms.

    Attributes:
        value: from all answers; nan where it is not defined.
        low: lower end of the 95 % interval; nan for fewer than two clusters or where no resample defines the value.
        high: its upper end.
        undefined: share of resamples (0-1) that do not define it; the interval is of the others.
        p: of a difference, two-sided: see `bootstrap`. nan otherwise.
    """

    value: float
    low: float
    high: float
    undefined: float
    p: float = float("nan")


class Bootstrap(NamedTuple):
    """What `bootstrap` found.

    Attributes:
        values: arm -> metric -> estimate.
        differences: arm -> metric -> estimate of arm minus baseline; all arms but the baseline.
    """

    values: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]


def mcnemar(baseline: Bool[np.ndarray, " questions"], arm: Bool[np.ndarray, " questions"]) -> McNemar:
    """Compare two arms by the questions on which only one of them is right.

    The test takes questions for independent. With several questions an image they are not, and p tends to be too
    small: the p-value of `bootstrap` is the careful one.

    Args:
        baseline: whether it is right.
        arm: whether it is right, the same questions in the same order.

    Example:
        >>> mcnemar(np.array([True, False, False, False]), np.array([True, True, True, True]))
        McNemar(gained=3, lost=0, p=0.25)
    """
    return discordant(int((arm & ~baseline).sum()), int((baseline & ~arm).sum()))


def discordant(gained: int, lost: int) -> McNemar:
    """The test of `mcnemar` from its two counts.

    Example:
        >>> discordant(3, 0).p
        0.25
    """
    p = min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
    return McNemar(gained, lost, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false finding among them stays below the level that one is held to.

    Args:
        p_values: 0-1. One that is nan was no test: it stays nan and does not count.

    Raises:
        ValueError: a p-value is not within 0-1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    wrong = [p for p in p_values if not (np.isnan(p) or 0 <= p <= 1)]
    if wrong:
        raise ValueError(f"a p-value lies within 0 and 1, not {wrong[0]}")
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
        members: the cluster of each sample, 0 and up, none left out.
        numbers: what each sample contributes.
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

    A resample draws as many clusters as there are, with replacement; all arms are scored on the same draw. Resamples
    in which a metric is not defined (nothing was named, nothing was answered yes) are left out for that metric, and
    their share is told. Percentile intervals are too narrow for few clusters (below about 30), and have no width where
    every answer is alike.

    The p-value of a difference is the percentile interval turned round: up to a resample or two it is below 0.05 where
    the 95 % interval excludes 0. With `below` resamples where the difference is 0 or less, and `above` where it is 0
    or more, it is 2 (1 + min(below, above)) / (1 + resamples), at most 1; so never less than 2 / (1 + resamples).

    Args:
        clusters: the cluster of each sample, such as the name of its image.
        numbers: arm -> name -> what each sample contributes; the same names for every arm.
        metrics: as a benchmark has it: sums by name -> metrics, elementwise, nan where one is not defined.
        baseline: an arm that the others are compared to; `None` compares none.
        resamples: at least 1.
        seed: of the draws, which depend on nothing else but the number of clusters.

    Raises:
        ValueError: no samples, no resamples, arms with other names or other numbers of samples, or a baseline that is
            none of the arms.

    Example:
        >>> right = {"base": {"right": np.array([1, 0, 1, 0])}, "fix": {"right": np.array([1, 1, 1, 0])}}
        >>> found = bootstrap(["a", "a", "b", "b"], right, lambda sums: {"right": sums["right"]}, baseline="base")
        >>> found.values["fix"]["right"].value, found.differences["fix"]["right"].value
        (3.0, 1.0)
    """
    names = _checked(clusters, numbers, baseline, resamples)
    place: dict[Hashable, int] = {}
    members = np.array([place.setdefault(cluster, len(place)) for cluster in clusters])
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
    """Sums of resamples of clusters; of fewer than two clusters there are none, and all is nan.

    Args:
        sums: of each cluster.
        resamples: at least 1.
        seed: of the draws, which depend on nothing else but the number of clusters.
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
        # How often each cluster is drawn is multinomial.
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
    """Metrics of every arm and their differences to the baseline, from sums that were drawn already.

    Args:
        sums: arm -> sums of each cluster.
        drawn: arm -> sums of each resample, of the same draws for every arm (`resample` of all their columns at once).
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
        raise ValueError("there are no answers to score; give samples and at least one arm")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples give no interval; take 10000, or at least 1")
    if baseline is not None and baseline not in numbers:
        raise ValueError(f"the baseline {baseline!r} is none of the arms: {', '.join(numbers)}")
    first, *_ = numbers.values()
    for arm, own in numbers.items():
        if set(own) != set(first):
            raise ValueError(f"arm {arm!r} contributes {sorted(own)}, another one {sorted(first)}; names must agree")
        wrong = [name for name in own if np.shape(own[name]) != (len(clusters),)]
        if wrong:
            raise ValueError(
                f"arm {arm!r} has {wrong[0]!r} of shape {np.shape(own[wrong[0]])} for {len(clusters)} samples; "
                "give one number a sample"
            )
    return list(first)


def _score(metrics: Metrics, names: Sequence[str], sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of each row of sums; nan where one is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = metrics({name: np.ascontiguousarray(sums[:, index]) for index, name in enumerate(names)})
    arrays = {name: np.broadcast_to(np.asarray(value, dtype=float), len(sums)) for name, value in found.items()}
    return {name: np.where(np.isfinite(array), array, np.nan) for name, array in arrays.items()}


def _minus(arm: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Differences, those by rounding made 0: equal columns of a matrix product may differ in their last bits."""
    difference = arm - baseline
    return np.where(np.abs(difference) <= ROUNDING * np.maximum(np.abs(arm), np.abs(baseline)), 0.0, difference)


def _estimate(value: float, draws: np.ndarray, test: bool = False) -> Estimate:
    defined = draws[~np.isnan(draws)]
    nan = float("nan")
    undefined = 1 - len(defined) / len(draws)
    if np.isnan(value) or not len(defined):
        return Estimate(value=float(value), low=nan, high=nan, undefined=undefined)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    fewer = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    p = min(1.0, 2 * (1 + fewer) / (1 + len(defined))) if test else nan
    return Estimate(value=float(value), low=float(low), high=float(high), undefined=undefined, p=p)
