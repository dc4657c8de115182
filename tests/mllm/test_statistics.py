from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from regard.mllm import statistics
from regard.mllm.statistics import bootstrap, holm, mcnemar, wilson


def share(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    """Right answers of every arm; the last column is how many there are."""
    return {"share": sums[:, :-1] / sums[:, -1:]}


def images_with_like_answers(random: np.random.Generator, images: int, *rates: float, questions: int = 6) -> np.ndarray:
    """Right answers (images, questions, arms), at each arm's rate; images are easy or hard for all arms alike."""
    ease = random.random((images, 1, 1))
    chance = stats.beta.ppf(ease, np.array(rates), 1 - np.array(rates))  # correlation of questions: a half
    return random.random((images, questions, len(rates))) < chance


def by_image(right: np.ndarray) -> np.ndarray:
    return np.column_stack([right.sum(axis=1), np.full(len(right), right.shape[1])]).astype(float)


def by_question(right: np.ndarray) -> np.ndarray:
    return by_image(right.reshape(-1, 1, right.shape[2]))


@pytest.mark.parametrize("seed", range(20))
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    baseline, arm = random.random((2, 1 + 30 * seed)) < random.random((2, 1))
    lost, gained, p = mcnemar(baseline, arm)
    assert lost == sum(b and not a for b, a in zip(baseline, arm, strict=True))
    assert gained == sum(a and not b for b, a in zip(baseline, arm, strict=True))
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert p == pytest.approx(expected, rel=1e-9)


def test_mcnemar_holds_with_ten_thousand_pairs() -> None:
    arm = np.arange(20_000) % 2 == 0
    baseline = np.where(np.arange(20_000) < 1000, True, ~arm)
    lost, gained, p = mcnemar(baseline, arm)
    assert (lost, gained) == (10_000, 9_500)
    assert p == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, rel=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_holm_rejects_what_the_step_down_rule_rejects(seed: int) -> None:
    p = np.random.default_rng(seed).random(seed + 1) ** 4
    corrected = holm(p)
    for level in (0.01, 0.05, 0.2):
        rejected = np.zeros(len(p), dtype=bool)
        for step, index in enumerate(np.argsort(p)):
            if p[index] > level / (len(p) - step):
                break
            rejected[index] = True
        np.testing.assert_array_equal(corrected <= level, rejected)


def test_holm_leaves_out_what_is_no_test() -> None:
    np.testing.assert_array_equal(holm([0.03, float("nan"), 0.01]), [0.03, np.nan, 0.02])
    assert len(holm([])) == 0


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (0, 40), (40, 40), (3, 7), (4321, 9000)])
def test_wilson_is_that_of_scipy(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_everything_and_of_nonsense_an_error() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 hits of 2"):
        wilson(3, 2)


def test_intervals_are_those_of_scipy() -> None:
    random = np.random.default_rng(1)
    numbers = by_image(images_with_like_answers(random, 80, 0.6, 0.7))
    ours = bootstrap(numbers, share)["share"]

    def ratio(right: np.ndarray, asked: np.ndarray, axis: int) -> np.ndarray:
        return right.sum(axis=axis) / asked.sum(axis=axis)

    def difference(baseline: np.ndarray, arm: np.ndarray, asked: np.ndarray, axis: int) -> np.ndarray:
        return ratio(arm, asked, axis) - ratio(baseline, asked, axis)

    options = {"paired": True, "n_resamples": 10_000, "method": "percentile", "vectorized": True, "rng": 5}
    for index in range(2):
        theirs = stats.bootstrap((numbers[:, index], numbers[:, 2]), ratio, **options).confidence_interval
        assert (ours.low[index], ours.high[index]) == pytest.approx(tuple(theirs), abs=0.005)
    theirs = stats.bootstrap(tuple(numbers.T), difference, **options).confidence_interval
    assert (ours.difference_low[1], ours.difference_high[1]) == pytest.approx(tuple(theirs), abs=0.005)


def test_weights_are_multinomial() -> None:
    weights = statistics._weights(np.random.default_rng(0), 20_000, 5)
    assert (weights.sum(axis=1) == 5).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(np.cov(weights.T), np.eye(5) - 0.2, atol=0.03)


def test_intervals_cover_at_their_level_only_when_whole_images_are_drawn() -> None:
    random = np.random.default_rng(0)
    covered, difference_covered, alarms, narrow = [], [], [], []
    for seed in range(400):
        right = images_with_like_answers(random, 60, 0.7, 0.7)
        estimate = bootstrap(by_image(right), share, resamples=600, seed=seed)["share"]
        covered.append(estimate.low[0] <= 0.7 <= estimate.high[0])
        difference_covered.append(estimate.difference_low[1] <= 0 <= estimate.difference_high[1])
        alarms.append(estimate.p[1] <= 0.05)
        single = bootstrap(by_question(right), share, resamples=300, seed=seed)["share"]
        narrow.append(single.low[0] <= 0.7 <= single.high[0])
    assert 0.92 <= np.mean(covered) <= 0.98
    assert 0.92 <= np.mean(difference_covered) <= 0.98
    assert 0.02 <= np.mean(alarms) <= 0.08
    assert np.mean(narrow) < 0.85


def test_a_true_difference_is_covered_and_found() -> None:
    random = np.random.default_rng(3)
    covered, found = [], []
    for seed in range(200):
        right = images_with_like_answers(random, 80, 0.6, 0.8)
        estimate = bootstrap(by_image(right), share, resamples=600, seed=seed)["share"]
        covered.append(estimate.difference_low[1] <= 0.2 <= estimate.difference_high[1])
        found.append(estimate.p[1] <= 0.05)
    assert 0.91 <= np.mean(covered) <= 0.99
    assert np.mean(found) > 0.9


def test_pairing_makes_differences_of_like_arms_sharper() -> None:
    random = np.random.default_rng(2)
    right = images_with_like_answers(random, 100, 0.7, 0.7)
    estimate = bootstrap(by_image(right), share)["share"]
    assert estimate.difference_high[1] - estimate.difference_low[1] < 0.6 * (estimate.high[1] - estimate.low[1])


def test_p_agrees_with_the_interval_and_is_never_zero() -> None:
    random = np.random.default_rng(4)
    for seed in range(60):
        right = images_with_like_answers(random, 40, 0.5, random.choice([0.5, 0.6, 0.65]))
        estimate = bootstrap(by_image(right), share, resamples=999, seed=seed)["share"]
        apart = estimate.difference_low[1] > 0 or estimate.difference_high[1] < 0
        if not 0.045 < estimate.p[1] < 0.055:  # where a percentile lies between two resamples
            assert (estimate.p[1] <= 0.05) == apart
    clear = bootstrap(np.array([[0.0, 1.0, 1.0]] * 9), share, resamples=999)["share"]
    assert clear.p[1] == 2 / 1000
    assert np.isnan(clear.p[0])


def test_arms_with_the_same_answers_do_not_differ() -> None:
    numbers = by_image(images_with_like_answers(np.random.default_rng(5), 50, 0.7))[:, [0, 0, 1]]
    estimate = bootstrap(numbers, share, resamples=500)["share"]
    assert (estimate.difference[1], estimate.difference_low[1], estimate.difference_high[1]) == (0, 0, 0)
    assert estimate.p[1] == 1


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = by_image(images_with_like_answers(np.random.default_rng(6), 37, 0.5, 0.6))
    once = bootstrap(numbers, share, resamples=700, seed=1)["share"]
    monkeypatch.setattr(statistics, "WEIGHTS", 37 * 13)
    again = bootstrap(numbers, share, resamples=700, seed=1)["share"]
    np.testing.assert_array_equal(once.low, again.low)
    np.testing.assert_array_equal(once.p, again.p)
    assert (bootstrap(numbers, share, resamples=700, seed=2)["share"].low != once.low).any()


def test_resamples_without_a_metric_are_left_out_and_counted() -> None:
    numbers = np.zeros((10, 3))
    numbers[:2] = 1.0  # only two of ten images have something to count
    estimate = bootstrap(numbers, share, resamples=4000)["share"]
    assert estimate.defined[0] == pytest.approx(1 - 0.8**10, abs=0.02)
    assert (estimate.value[0], estimate.low[0], estimate.high[0]) == (1, 1, 1)
    never = bootstrap(np.zeros((10, 3)), share, resamples=50)["share"]
    assert never.defined[1] == 0
    for field in (never.value, never.low, never.difference, never.difference_high, never.p):
        assert np.isnan(field[1])


def test_a_metric_that_one_arm_lacks_has_no_difference() -> None:
    def metrics(sums: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"ratio": sums[:, :2] / sums[:, 2:]}

    numbers = np.column_stack([np.ones(20), np.ones(20), np.ones(20), np.zeros(20)])
    estimate = bootstrap(numbers, metrics, resamples=50)["ratio"]
    assert estimate.value[0] == 1
    assert np.isnan([estimate.value[1], estimate.difference[1], estimate.p[1]]).all()


def test_one_image_has_no_interval() -> None:
    estimate = bootstrap(np.array([[1.0, 2.0, 4.0]]), share)["share"]
    np.testing.assert_array_equal(estimate.value, [0.25, 0.5])
    assert np.isnan([*estimate.low, *estimate.high, estimate.difference_low[1], estimate.p[1]]).all()


def test_tables_behind_the_arms_keep_their_place() -> None:
    def metrics(sums: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"sum": sums.reshape(len(sums), 2, 3)}

    numbers = np.random.default_rng(0).random((30, 6))
    table = bootstrap(numbers, metrics, resamples=400)["sum"]
    assert table.value.shape == table.p.shape == (2, 3)
    alone = bootstrap(numbers[:, [2, 5]], lambda sums: {"sum": sums}, resamples=400)["sum"]
    np.testing.assert_allclose(table.difference_low[:, 2], alone.difference_low)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [(0, {}, "no images"), (2, {"resamples": 0}, "at least 1"), (2, {"level": 95.0}, "95.0")],
)
def test_wrong_arguments_are_named(images: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(np.ones((images, 3)), share, **options)
