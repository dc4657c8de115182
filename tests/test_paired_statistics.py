"""Tests between arms and intervals by image, against scipy, references by hand, and tables whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from regard import paired_statistics as statistics
from regard.paired_statistics import bootstrap, cluster_sums, holm, mcnemar

RANDOM = [np.random.default_rng(seed) for seed in range(6)]


def accuracy(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"accuracy": sums["right"] / sums["asked"]}


def table(right: np.ndarray) -> dict[str, np.ndarray]:
    return {"right": right.astype(float), "asked": np.ones(len(right))}


@pytest.mark.parametrize("size", [1, 2, 7, 40, 3000])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_mcnemar_is_the_binomial_test_of_the_discordant_questions(size: int, shift: float) -> None:
    generator = np.random.default_rng(size)
    baseline, arm = generator.random(size) < 0.5, generator.random(size) < 0.5 + shift
    found = mcnemar(baseline, arm)
    lost = sum(bool(b and not a) for b, a in zip(baseline, arm, strict=True))
    gained = sum(bool(a and not b) for b, a in zip(baseline, arm, strict=True))
    assert (found.gained, found.lost) == (gained, lost)
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_arms_that_never_disagree_have_p_one() -> None:
    same = np.array([True, False, True])
    assert mcnemar(same, same) == (0, 0, 1.0)


@pytest.mark.parametrize("generator", RANDOM)
def test_holm_is_its_definition_step_by_step(generator: np.random.Generator) -> None:
    p_values = generator.random(int(generator.integers(1, 9))) ** 3
    adjusted = holm(p_values.tolist())
    for level in np.linspace(0.001, 0.999, 333):  # the procedure of the paper rejects just these
        order = np.argsort(p_values)
        rejected = set()
        for rank, index in enumerate(order):
            if p_values[index] > level / (len(order) - rank):
                break
            rejected.add(int(index))
        assert {index for index, p in enumerate(adjusted) if p <= level} == rejected


def test_a_p_value_that_is_no_number_does_not_count_for_holm() -> None:
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_a_p_value_outside_of_its_range_is_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=str(wrong)):
        holm([0.5, wrong])


def test_sums_of_clusters_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    members, numbers = generator.permutation(np.arange(50) % 7), generator.random((50, 3))
    expected = np.stack([numbers[members == cluster].sum(axis=0) for cluster in range(7)])
    np.testing.assert_allclose(cluster_sums(members, numbers), expected)


@pytest.mark.parametrize("chunk", [1, 64, statistics.CHUNK])
def test_resamples_are_those_of_a_loop_in_any_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    clusters = [f"image {index}" for index in generator.integers(12, size=80)]
    arms = {name: table(generator.random(80) < share) for name, share in (("base", 0.5), ("fix", 0.7))}
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    found = bootstrap(clusters, arms, accuracy, baseline="base", resamples=200, seed=3)

    names = list(dict.fromkeys(clusters))
    drawer, shares = np.random.default_rng(3), {"base": [], "fix": []}
    drawn = drawer.integers(12, size=(200, 12), dtype=np.int32) if chunk > 64 else None
    if drawn is None:
        rows = max(1, chunk // 12)
        counts = [min(rows, 200 - start) for start in range(0, 200, rows)]
        drawn = np.concatenate([drawer.integers(12, size=(count, 12), dtype=np.int32) for count in counts])
    for picks in drawn:
        members = [index for pick in picks for index, name in enumerate(clusters) if name == names[pick]]
        for arm in arms:
            shares[arm].append(arms[arm]["right"][members].mean())
    base, fix = np.array(shares["base"]), np.array(shares["fix"])
    np.testing.assert_allclose(
        [found.values["fix"]["accuracy"].low, found.values["fix"]["accuracy"].high], np.quantile(fix, [0.025, 0.975])
    )
    difference = found.differences["fix"]["accuracy"]
    np.testing.assert_allclose([difference.low, difference.high], np.quantile(fix - base, [0.025, 0.975]))
    assert difference.value == pytest.approx(arms["fix"]["right"].mean() - arms["base"]["right"].mean())
    assert difference.p == pytest.approx(min(1, 2 * (1 + min(sum(fix <= base), sum(fix >= base))) / 201))
    assert set(found.differences) == {"fix"}


def test_intervals_agree_with_those_of_scipy_where_every_cluster_is_one_answer() -> None:
    right = np.random.default_rng(2).random(200) < 0.7
    found = bootstrap(range(200), {"only": table(right)}, accuracy).values["only"]["accuracy"]
    expected = stats.bootstrap(
        (right.astype(float),), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.006)


def test_the_seed_settles_everything() -> None:
    arms = {"only": table(np.random.default_rng(4).random(60) < 0.4)}
    same = [bootstrap(range(60), arms, accuracy, resamples=300, seed=7) for _ in range(2)]
    assert str(same[0]) == str(same[1])
    assert str(bootstrap(range(60), arms, accuracy, resamples=300, seed=8)) != str(same[0])


def test_arms_share_their_draws_so_that_a_constant_shift_has_no_width() -> None:
    generator = np.random.default_rng(5)
    words = generator.integers(5, 50, size=90).astype(float)
    arms = {name: {"words": words + more, "asked": np.ones(90)} for name, more in (("base", 0.0), ("longer", 3.0))}
    found = bootstrap(
        [index % 30 for index in range(90)], arms, lambda sums: {"mean": sums["words"] / sums["asked"]}, baseline="base"
    )
    difference = found.differences["longer"]["mean"]
    assert (difference.low, difference.high) == pytest.approx((3.0, 3.0))
    assert found.values["longer"]["mean"].high - found.values["longer"]["mean"].low > 1


def test_an_arm_that_is_the_baseline_differs_by_nothing_in_spite_of_rounding() -> None:
    generator = np.random.default_rng(6)
    numbers = {"mass": generator.random(500), "asked": generator.random(500)}
    arms = dict.fromkeys(("base", "a", "b", "c"), numbers)
    found = bootstrap(
        [index % 41 for index in range(500)], arms, lambda sums: {"mean": sums["mass"] / sums["asked"]}, baseline="base"
    )
    for arm in "abc":
        difference = found.differences[arm]["mean"]
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_differences_that_are_rounding_are_none() -> None:
    generator = np.random.default_rng(8)
    numbers = {"mass": generator.random(500), "asked": generator.random(500)}
    arms = {"base": numbers, "thirds": {name: own / 3 for name, own in numbers.items()}}
    found = bootstrap(
        [index % 41 for index in range(500)], arms, lambda sums: {"mean": sums["mass"] / sums["asked"]}, baseline="base"
    )
    difference = found.differences["thirds"]["mean"]
    assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_resamples_without_a_value_are_left_out_and_told() -> None:
    named = np.array([1.0, 0, 0, 0])  # a resample misses the first image with a probability of .75^4
    arms = {"base": {"wrong": named, "named": named}, "fix": {"wrong": named * 0, "named": named}}
    found = bootstrap(range(4), arms, lambda sums: {"share": sums["wrong"] / sums["named"]}, baseline="base")
    share = found.values["base"]["share"]
    assert (share.value, share.low, share.high) == (1, 1, 1)
    assert share.undefined == pytest.approx(0.75**4, abs=0.02)
    assert found.differences["fix"]["share"].value == -1


def test_a_metric_that_is_defined_nowhere_has_no_interval() -> None:
    arms = {name: {"wrong": np.zeros(5), "named": np.zeros(5)} for name in ("base", "fix")}
    found = bootstrap(range(5), arms, lambda sums: {"share": sums["wrong"] / sums["named"]}, baseline="base")
    for estimate in (found.values["fix"]["share"], found.differences["fix"]["share"]):
        assert np.isnan([estimate.value, estimate.low, estimate.high, estimate.p]).all()
        assert estimate.undefined == 1


def test_one_image_gives_a_value_and_no_interval() -> None:
    estimate = bootstrap(["a"] * 5, {"only": table(np.ones(5))}, accuracy).values["only"]["accuracy"]
    assert estimate.value == 1
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


@pytest.mark.parametrize(
    ("clusters", "arms", "baseline", "resamples", "message"),
    [
        ([], {"a": {}}, None, 10, "nothing to score"),
        ([0], {}, None, 10, "nothing to score"),
        ([0], {"a": {"n": np.ones(1)}}, "b", 10, "baseline 'b'"),
        ([0], {"a": {"n": np.ones(1)}}, "a", 0, "resamples must be at least 1; got 0"),
        ([0], {"a": {"n": np.ones(1)}, "b": {"m": np.ones(1)}}, "a", 10, "another one"),
        ([0, 1], {"a": {"n": np.ones(3)}}, "a", 10, "one number per sample"),
    ],
)
def test_what_cannot_be_scored_is_named(
    clusters: list[int], arms: dict[str, dict[str, np.ndarray]], baseline: str | None, resamples: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(clusters, arms, lambda sums: sums, baseline=baseline, resamples=resamples)


def test_intervals_by_image_cover_the_truth_and_intervals_by_question_do_not() -> None:
    generator = np.random.default_rng(9)
    images, questions, runs = 80, 6, 250
    members = [index // questions for index in range(images * questions)]
    covered = {"value by image": 0, "value by question": 0, "difference by image": 0, "difference by question": 0}
    for seed in range(runs):
        easy = np.repeat(generator.beta(0.5, 0.5, images), questions)  # mean .5, correlation .5 within an image
        helped = np.repeat(generator.random(images) < 0.2, questions)  # a fifth of the images, all their questions
        base = generator.random(images * questions) < easy
        arms = {"base": table(base), "fix": table(base | helped)}
        for name, clusters in (("image", members), ("question", range(images * questions))):
            found = bootstrap(clusters, arms, accuracy, baseline="base", resamples=300, seed=seed)
            value, difference = found.values["base"]["accuracy"], found.differences["fix"]["accuracy"]
            covered[f"value by {name}"] += value.low <= 0.5 <= value.high
            covered[f"difference by {name}"] += difference.low <= 0.1 <= difference.high
    shares = {name: count / runs for name, count in covered.items()}
    assert 0.91 <= shares["value by image"] <= 0.98, shares
    assert 0.91 <= shares["difference by image"] <= 0.98, shares
    assert shares["value by question"] < 0.85, shares
    assert shares["difference by question"] < 0.85, shares
