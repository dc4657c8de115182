from __future__ import annotations

import numpy as np
import pytest
import torch

from regard.datasets.bags import open_bags
from regard.datasets.bags.scenarios import SCENARIOS, Scenario, render_bags

NAMES = list(SCENARIOS)


def tumour_shares(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each bag: the share of its instances that are tumour, and its label."""
    bags = open_bags(name, seed=1)
    truths = [bags.instance_labels(index) for index in range(len(bags))]
    shares = np.array([truth.float().mean().item() for truth in truths if truth is not None])
    return shares, np.array([bag.label for bag in bags.bags])


@pytest.mark.parametrize("name", NAMES)
def test_a_world_follows_from_its_seed(name: str) -> None:
    first, again, other = (open_bags(name, seed=seed) for seed in (3, 3, 4))
    assert first.bags == again.bags
    assert torch.equal(first.features(7), again.features(7))
    assert not torch.equal(first.features(7), other.features(7))


@pytest.mark.parametrize("name", NAMES)
def test_sixty_bags_to_train_on_and_a_hundred_to_test(name: str) -> None:
    bags = open_bags(name)
    assert bags.fold is not None
    assert (len(bags.fold.train), len(bags.fold.val), len(bags.fold.test)) == (60, 0, 100)
    assert bags.features(0).shape == (200, 16)
    assert all(bags.bags[index].id.startswith("train") for index in bags.fold.train)
    assert bags.subset(bags.fold.test).instance_labels(0) is not None


@pytest.mark.parametrize(("name", "low", "high"), [("mil_shortcut", 0.1, 0.3), ("mil_rare", 0.02, 0.06)])
def test_tumour_instances_are_in_positive_bags_only(name: str, low: float, high: float) -> None:
    shares, labels = tumour_shares(name)
    assert labels[:60].sum() == 30
    assert labels[60:].sum() == 50
    assert not shares[labels == 0].any()
    assert low - 0.003 <= shares[labels == 1].min() < shares[labels == 1].max() <= high + 0.003


def test_a_tenth_of_the_training_labels_is_wrong() -> None:
    shares, labels = tumour_shares("mil_noise")
    wrong = (shares > 0) != labels.astype(bool)
    assert wrong[:60].sum() == 6
    assert not wrong[60:].any()


def test_most_test_tumours_lack_the_salient_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """The salient pattern makes instances long: some are longer than anything without it."""
    bags = open_bags("mil_shortcut", seed=2)
    longest = np.array([bags.features(index).norm(dim=1).topk(10).values.mean().item() for index in range(160)])
    labels = np.array([bag.label for bag in bags.bags])
    bare = longest[labels == 0].mean()
    train, test = longest[:60][labels[:60] == 1], longest[60:][labels[60:] == 1]
    assert np.median(train) - bare > 1.3 * (np.median(test) - bare)


def test_other_scenarios_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCENARIOS, "mine", Scenario(9, (1.0, 1.0), 1, (0.5, 0.5)))
    bags = render_bags("mine")
    truth = bags.instance_labels(next(index for index, bag in enumerate(bags.bags) if bag.label))
    assert truth is not None
    assert truth.sum() == 100


def test_scenarios_that_are_none_are_explained() -> None:
    with pytest.raises(ValueError, match="no scenario 'mil_easy'; known: mil_shortcut"):
        render_bags("mil_easy")
    with pytest.raises(ValueError, match="seed is -1"):
        open_bags("mil_rare", seed=-1)
