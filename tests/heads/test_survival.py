"""Survival: the likelihood with censoring, and concordance with ties, against the plainest reading of both."""

from __future__ import annotations

import pytest
import torch

from regard.heads.survival import concordance, intervals_of, risk, survival_cuts, survival_loss


def plain_concordance(risks: list[float], times: list[float], events: list[bool]) -> float:
    """Harrell's index pair by pair."""
    held = compared = 0.0
    for first in range(len(times)):
        for second in range(len(times)):
            later = times[second] > times[first] or (times[second] == times[first] and not events[second])
            if first != second and events[first] and later:
                compared += 1
                held += 1.0 if risks[first] > risks[second] else 0.5 if risks[first] == risks[second] else 0.0
    return held / compared


@pytest.mark.parametrize("seed", range(2))
def test_concordance_is_what_pairs_say_one_by_one_with_ties_of_time_and_risk(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    times = torch.randint(1, 8, (30,), generator=draw).float()
    risks = torch.randint(0, 6, (30,), generator=draw).float()
    events = torch.rand(30, generator=draw) < 0.6
    found = concordance(risks, times, events).item()
    assert found == pytest.approx(plain_concordance(risks.tolist(), times.tolist(), events.tolist()), abs=1e-6)


def test_concordance_without_events_is_no_number() -> None:
    assert concordance(torch.rand(3), torch.arange(3.0), torch.zeros(3, dtype=torch.bool)).isnan()


def test_the_loss_is_minus_the_logarithm_of_the_likelihood() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 1], [1, 1], [3, 1], [0, 0], [2, 0], [3, 0]])
    hazards = logits.double().sigmoid()
    total = 0.0
    for row, (index, event) in zip(hazards, targets.tolist(), strict=True):
        likelihood = row[index] if event else 1 - row[index]
        for before in range(index):
            likelihood = likelihood * (1 - row[before])
        total -= likelihood.log().item()
    assert survival_loss(logits, targets).item() == pytest.approx(total / 6, rel=1e-5)


def test_extreme_hazards_keep_loss_and_gradient_finite() -> None:
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    loss = survival_loss(logits, torch.tensor([[1, 1], [0, 0]]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_cuts_hold_alike_many_events_and_look_at_no_censored_time() -> None:
    times = torch.cat([torch.arange(1.0, 9.0), torch.full((20,), 100.0)])
    events = torch.arange(28) < 8
    cuts = survival_cuts(times, events, 4)
    assert torch.bincount(intervals_of(times[events], cuts)).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("events", "hint"),
    [([False] * 6, "all 6 bags are censored"), ([True, True] + [False] * 4, "2 events at 2 times")],
)
def test_too_few_events_are_named(events: list[bool], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        survival_cuts(torch.arange(6.0), torch.tensor(events), 4)


def test_a_sooner_event_is_a_higher_risk() -> None:
    early, late = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[-3.0, 0.0, 0.0]])
    assert risk(early) > risk(late)
