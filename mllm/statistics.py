"""Is one arm better than another, on the same questions? Paired tests and intervals for answers that share images.

Questions about one image are not independent: six of them are less than six facts. So whole images are drawn again,
with all their questions and for all arms at once; intervals from single questions are too narrow.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 15; Davison and Hinkley 1997,
"Bootstrap Methods and their Application", section 4.4; McNemar 1947, doi:10.1007/BF02295996, in its exact form;
Holm 1979, doi:10.2307/4615733; Wilson 1927, doi:10.1080/01621459.1927.10502953.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

__all__ = ["Estimate", "McNemar", "Metrics", "bootstrap", "holm", "mcnemar", "wilson"]

#: Metrics of sums: (resamples, names) -> by name, an array (resamples, arms, ...), the baseline first.
Metrics = Callable[[Float[np.ndarray, "resamples names"]], Mapping[str, np.ndarray]]

#: Weights of images that are in memory at once, 8 MB.
WEIGHTS = 1 << 20


class McNemar(NamedTuple):
    """Where two arms disagree.

    Attributes:
        lost: b, right under the baseline and wrong under the arm.
        gained: c, wrong under the baseline and right under the arm.
        p: two-sided.
    """

    lost: int
    gained: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of all arms, and how it differs from the baseline, arm 0. All arrays are (arms, ...).

    Attributes:
        value: on all images, nan where it is not defined.
        low: lower end of its interval, nan where there is none.
        high: upper end.
        difference: value minus the baseline's; 0 for the baseline.
        difference_low: lower end of its interval.
        difference_high: upper end.
        p: two-sided, of no difference; nan for the baseline.
        defined: share of the resamples in which the metric is defined (0-1); the others are left out.
    """

    value: Float[np.ndarray, "arms *tables"]
    low: Float[np.ndarray, "arms *tables"]
    high: Float[np.ndarray, "arms *tables"]
    difference: Float[np.ndarray, "arms *tables"]
    difference_low: Float[np.ndarray, "arms *tables"]
    difference_high: Float[np.ndarray, "arms *tables"]
    p: Float[np.ndarray, "arms *tables"]
    defined: Float[np.ndarray, "arms *tables"]


def mcnemar(baseline: Bool[np.ndarray, " answers"], arm: Bool[np.ndarray, " answers"]) -> McNemar:
    """Exact test of whether two arms are right equally often.

    Only answers of which one is right and the other wrong count; with no difference each is as likely the one as the
    other, so `lost` is binomial with a half. It takes the answers for independent. Several questions about an image
    are not quite, so its p may be too small; that of `bootstrap` is not.

    Args:
        baseline: whether each answer of the baseline is right.
        arm: whether each answer of the arm to the same questions is.

    Raises:
        ValueError: they are of different length.

    Example:
        >>> mcnemar(np.array([True, True, False, False]), np.array([True, False, False, False]))
        McNemar(lost=1, gained=0, p=1.0)
    """
    if len(baseline) != len(arm):
        raise ValueError(
            f"a paired test needs both arms' answers to the same questions, not {len(baseline)} and {len(arm)}"
        )
    lost, gained = int((baseline & ~arm).sum()), int((~baseline & arm).sum())
    p = min(1.0, 2 * float(special.bdtr(min(lost, gained), lost + gained, 0.5)))
    return McNemar(lost, gained, p)


def holm(p: Sequence[float] | Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Correct p-values for the number of tests by Holm's step-down rule: the chance of any false alarm keeps its level.

    Args:
        p: of each test (0-1); nan is no test and stays nan.

    Example:
        >>> holm([0.01, 0.04, float("nan")])
        array([0.02, 0.04,  nan])
    """
    corrected = np.array(p, dtype=float)
    tests = np.flatnonzero(~np.isnan(corrected))
    order = tests[np.argsort(corrected[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(corrected[order] * factors))
    return corrected


def wilson(hits: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of independent trials that keeps its width where a bootstrap has none, at 0 and at 1.

    Args:
        hits: how often it happened.
        trials: how often it could have; without any the interval is 0 to 1.
        level: of confidence, 0-1.

    Raises:
        ValueError: there are more hits than trials, or fewer than none.

    Example:
        >>> low, high = wilson(0, 40)
        >>> f"{low:.3f} {high:.3f}"
        '0.000 0.088'
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials are no share; hits must lie between 0 and the trials")
    if not trials:
        return 0.0, 1.0
    z = float(stats.norm.ppf((1 + level) / 2))
    scale = 1 + z**2 / trials
    centre = (hits / trials + z**2 / (2 * trials)) / scale
    half = z / scale * np.sqrt(hits * (trials - hits) / trials**3 + z**2 / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bootstrap(
    numbers: Float[np.ndarray, "clusters names"],
    metrics: Metrics,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Intervals of metrics of sums, and of their differences to the baseline, by drawing whole images again.

    Each resample draws as many images as there are, with replacement, the same ones for all arms. Intervals are
    percentiles. The p-value of a difference inverts that interval: twice the smaller share of resamples in which the
    difference is at most 0 or at least 0, each counted with one more resample on that side, so that p is never 0:
    p = min(1, 2 min(1 + #{d <= 0}, 1 + #{d >= 0}) / (resamples + 1)). It is below 1 - level where the interval leaves
    out 0. Two arms with the same answers have p = 1.

    An interval is nan with fewer than two images. One of no width says only that every image scores alike. With fewer
    than about 30 images percentile intervals are somewhat too narrow.

    Args:
        numbers: what each image contributes, summed over its questions. A column is one number of one arm (and part,
            and parser); `metrics` knows which.
        metrics: takes sums (resamples, names), gives arrays (resamples, arms, ...), nan or infinite where a metric is
            not defined. It is called with one resample, all images as they are, and then with many at a time.
        resamples: how many; the smallest p is 2 / (resamples + 1).
        seed: of the drawing.
        level: of confidence, 0-1.

    Raises:
        ValueError: there are no images or no resamples, or the level is not between 0 and 1.

    Example:
        >>> right_of_two = np.array([[1.0, 2.0], [0.0, 2.0], [1.0, 1.0], [0.0, 1.0]])  # 4 images, 2 arms
        >>> estimate = bootstrap(right_of_two, lambda sums: {"right": sums}, resamples=1000)["right"]
        >>> estimate.value, estimate.difference_low > 0
        (array([2., 6.]), array([False,  True]))
    """
    clusters = len(numbers)
    if not clusters:
        raise ValueError("there are no images to draw from; give at least one answer")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be at least 1 and level within 0 and 1, not {resamples} and {level}")
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = metrics(numbers.sum(axis=0, keepdims=True))
        drawn: dict[str, np.ndarray] = {}
        if clusters > 1:
            drawn = {name: np.empty((resamples, *value.shape[1:])) for name, value in whole.items()}
        random, done = np.random.default_rng(seed), 0
        while drawn and done < resamples:
            rows = min(resamples - done, max(1, WEIGHTS // clusters))
            for name, value in metrics(_weights(random, rows, clusters) @ numbers).items():
                drawn[name][done : done + rows] = value
            done += rows
    none = {name: np.full((1, *value.shape[1:]), np.nan) for name, value in whole.items()}
    return {name: _estimate(value[0], drawn.get(name, none[name]), level) for name, value in whole.items()}


def _weights(random: np.random.Generator, rows: int, clusters: int) -> Float[np.ndarray, "rows clusters"]:
    """How often each image is drawn, in each of several resamples."""
    drawn = random.integers(clusters, size=(rows, clusters))
    drawn += np.arange(rows)[:, None] * clusters
    return np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(float)


def _estimate(value: np.ndarray, drawn: np.ndarray, level: float) -> Estimate:
    value = np.where(np.isfinite(value), value, np.nan).astype(float)  # arms ...
    drawn = np.where(np.isfinite(drawn), drawn, np.nan)  # resamples arms ...
    low, high = _percentiles(drawn, level)
    low, high = (np.where(np.isnan(value), np.nan, end) for end in (low, high))
    differences = drawn - drawn[:, :1]
    difference = value - value[:1]
    difference_low, difference_high = (
        np.where(np.isnan(difference), np.nan, end) for end in _percentiles(differences, level)
    )
    counted = (~np.isnan(differences)).sum(axis=0)
    side = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    p = np.minimum(1, 2 * (1 + side) / (counted + 1))
    p = np.where(np.isnan(difference) | (counted == 0), np.nan, p)
    p[0] = np.nan
    return Estimate(
        value=value,
        low=low,
        high=high,
        difference=difference,
        difference_low=difference_low,
        difference_high=difference_high,
        p=p,
        defined=np.asarray((~np.isnan(drawn)).mean(axis=0)),
    )


def _percentiles(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the interval of every column over the resamples in which it is defined."""
    columns = drawn.reshape(len(drawn), -1).T
    ends = np.full((2, len(columns)), np.nan)
    for index, column in enumerate(columns):
        defined = column[~np.isnan(column)]
        if len(defined):
            ends[:, index] = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    low, high = ends.reshape(2, *drawn.shape[1:])
    return low, high
