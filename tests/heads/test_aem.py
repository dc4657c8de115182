"""Attention entropy maximisation."""

from __future__ import annotations

import math

import pytest
import torch
from all_heads import DIM, bags, small

from regard.heads import AEM, BagOutput, build_head
from regard.heads.aem import negative_entropy


def output_of(attention: torch.Tensor) -> BagOutput:
    return BagOutput(logits=torch.zeros(*attention.shape[:-2], 2), attention=attention)


def test_it_reaches_from_minus_ln_n_to_zero() -> None:
    even, single = torch.full((1, 50), 0.02), torch.eye(50)[:1]
    assert AEM(weight=1.0)(output_of(even)).item() == pytest.approx(-math.log(50), rel=1e-5)
    assert AEM(weight=1.0)(output_of(single)).item() == 0


def test_it_is_the_mean_over_maps_and_bags() -> None:
    scores = torch.randn(4, 3, 20)
    expected = (scores.softmax(dim=-1) * scores.log_softmax(dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(AEM(weight=0.3)(output_of(scores.softmax(dim=-1))), 0.3 * expected)


def test_its_gradient_is_finite_where_attention_is_zero() -> None:
    scores = torch.tensor([[0.0, 300.0, -torch.inf, 299.0]], requires_grad=True)
    AEM()(output_of(scores.softmax(dim=-1))).backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("case", ["abmil", "dsmil", "transmil"])
def test_learning_it_down_spreads_attention(case: str) -> None:
    head, bag = small(case).eval(), bags(20)
    optimiser = torch.optim.SGD([weight for weight in head.parameters() if weight.requires_grad], lr=0.02)
    before = negative_entropy(head(bag).attention).mean().item()
    for _ in range(10):
        optimiser.zero_grad()
        AEM(weight=1.0)(head(bag)).backward()
        optimiser.step()
    assert negative_entropy(head(bag).attention).mean().item() < before


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    head, bag = build_head("abmil", DIM, 2, width=16).eval(), bags(1, 20)
    valid = torch.arange(20)[None] < 8
    for normalise in (False, True):
        regulariser = AEM(normalise=normalise)
        padded, alone = regulariser(head(bag, valid), valid=valid), regulariser(head(bag[:, :8]))
        torch.testing.assert_close(padded, alone)


def test_normalised_it_does_not_know_the_size_of_a_bag() -> None:
    for count in (2, 100, 10000):
        found = AEM(weight=1.0, normalise=True)(output_of(torch.full((1, count), 1 / count)))
        assert found.item() == pytest.approx(-1, rel=1e-3)
    assert AEM(normalise=True)(output_of(torch.ones(1, 1))).item() == 0


def test_the_cosine_falls_from_the_weight_to_zero() -> None:
    regulariser = AEM(weight=0.4, schedule="cosine")
    assert [round(regulariser.weight_at(t), 6) for t in (0.0, 0.25, 0.5, 1.0)] == [0.4, 0.341421, 0.2, 0.0]
    assert AEM(weight=0.4).weight_at(0.7) == 0.4


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight of AEM is -0\.1"):
        AEM(weight=-0.1)


def test_it_needs_attention_and_a_share_of_the_training() -> None:
    with pytest.raises(ValueError, match="a head with attention"):
        AEM()(BagOutput(logits=torch.zeros(2)))
    with pytest.raises(ValueError, match="progress is 2"):
        AEM()(output_of(torch.ones(1, 1)), progress=2.0)
